"""Plain Flask + Celery with ``.get()``."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.stacks.base import Site, Stack, flask_server, program
from callboard.stack.process import Program

__all__ = ["CELERY_GET", "celery_worker"]


def celery_worker(site: Site) -> Program:
    """Celery's own advice for many short tasks: prefork, a child per core, no chatter."""
    return program(
        site,
        "worker",
        *("celery", "-A", "benchmarks.peers.celery_get:app", "worker", "--loglevel", "WARNING"),
        *("--concurrency", "2", "--without-mingle", "--without-gossip", "--without-heartbeat"),
    )


def _programs(site: Site) -> Sequence[Program]:
    return [celery_worker(site), flask_server(site, "benchmarks.peers.celery_get:web")]


CELERY_GET = Stack(
    key="celery",
    name="Flask + Celery .get()",
    kind="peer",
    settings=(
        "gunicorn gevent, 1 process; celery prefork, 2 children, prefetch 4 (default), early "
        "acknowledgement, no gossip, mingle, heartbeat or events; results in Redis"
    ),
    programs=_programs,
)
