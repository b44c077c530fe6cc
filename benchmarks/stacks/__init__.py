"""The stacks that the benchmark knows, in the order of its table."""

from benchmarks.stacks.base import Request, Site, Stack
from benchmarks.stacks.celery_get import CELERY_GET, CELERY_GEVENT
from benchmarks.stacks.dramatiq_flask import DRAMATIQ_FLASK, DRAMATIQ_GEVENT
from benchmarks.stacks.flower_apply import FLOWER_APPLY
from benchmarks.stacks.inline import INLINE
from benchmarks.stacks.ours import OURS, OURS_ASYNC, OURS_ASYNC_MANY
from benchmarks.stacks.redis_list import REDIS_LIST
from benchmarks.stacks.taskiq_fastapi import TASKIQ_ASYNC, TASKIQ_FASTAPI

__all__ = [
    "CELERY_GET",
    "OURS",
    "OURS_ASYNC",
    "OURS_ASYNC_MANY",
    "REDIS_LIST",
    "STACKS",
    "TASKIQ_ASYNC",
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
    OURS_ASYNC,
    OURS_ASYNC_MANY,
    TASKIQ_ASYNC,
    DRAMATIQ_GEVENT,
    CELERY_GEVENT,
)
