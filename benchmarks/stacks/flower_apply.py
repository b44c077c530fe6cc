"""Flower's ``POST /api/task/apply/NAME`` over the same Celery worker."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.stacks.base import HOST, Request, Site, Stack, program
from benchmarks.stacks.celery_get import celery_worker
from callboard.stack.process import Program

__all__ = ["FLOWER_APPLY"]


def _programs(site: Site) -> Sequence[Program]:
    flower = program(
        site,
        "web",
        *("celery", "-A", "benchmarks.peers.celery_get:app", "flower"),
        *("--conf=benchmarks/peers/flowerconfig.py", f"--address={HOST}", f"--port={site.port}"),
        FLOWER_UNAUTHENTICATED_API="true",
    )
    return [celery_worker(site), flower]


def _request(site: Site, job: str) -> Request:
    return Request(path=f"/api/task/apply/{job}")


FLOWER_APPLY = Stack(
    key="flower",
    name="Flower /api/task/apply",
    kind="peer",
    settings="the Celery worker as above; Flower, 1 process, without task events",
    programs=_programs,
    request=_request,
)
