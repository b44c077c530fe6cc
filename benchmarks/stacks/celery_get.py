"""Plain Flask + Celery with ``.get()``."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.jobs import WAIT
from benchmarks.stacks.base import Site, Stack, flask_server, program
from callboard.stack.process import Program

__all__ = ["CELERY_GET", "CELERY_GEVENT", "celery_worker"]


def celery_worker(site: Site, *pool: str) -> Program:
    """Celery's own advice for many short tasks: prefork, a child per core, no chatter."""
    return program(
        site,
        "worker",
        *("celery", "-A", "benchmarks.peers.celery_get:app", "worker", "--loglevel", "WARNING"),
        *(pool or ("--concurrency", "2")),
        *("--without-mingle", "--without-gossip", "--without-heartbeat"),
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


def _waiting(site: Site) -> Sequence[Program]:
    worker = celery_worker(site, "--pool", "gevent", "--concurrency", "1000")
    return [worker, flask_server(site, "benchmarks.peers.celery_get:web")]


CELERY_GEVENT = Stack(
    key="celery-gevent",
    name="Flask + Celery, gevent",
    kind="peer",
    settings="as above, but the worker's pool is gevent, 1,000 greenlets",
    programs=_waiting,
    jobs=(WAIT,),
)
