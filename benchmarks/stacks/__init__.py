"""The stacks that the benchmark knows, in the order of its table."""

from benchmarks.stacks.base import Request, Site, Stack
from benchmarks.stacks.celery_get import CELERY_GET
from benchmarks.stacks.dramatiq_flask import DRAMATIQ_FLASK
from benchmarks.stacks.flower_apply import FLOWER_APPLY
from benchmarks.stacks.inline import INLINE
from benchmarks.stacks.ours import OURS
from benchmarks.stacks.redis_list import REDIS_LIST
from benchmarks.stacks.taskiq_fastapi import TASKIQ_FASTAPI

__all__ = [
    "CELERY_GET",
    "OURS",
    "REDIS_LIST",
    "STACKS",
    "Request",
    "Site",
    "Stack",
]

STACKS = (
    OURS,
    TASKIQ_FASTAPI,
    DRAMATIQ_FLASK,
    CELERY_GET,
    FLOWER_APPLY,
    REDIS_LIST,
    INLINE,
)
