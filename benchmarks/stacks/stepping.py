"""Stacks whose handlers remember their steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import redis

from benchmarks.stacks.base import HOST, Request, Site, Stack, program
from benchmarks.stacks.ours import application, signed_request
from callboard.sdk.options import DEFAULT_QUEUE
from callboard.stack.process import Program

__all__ = ["DBOS", "OURS", "OURS_ASYNC", "STACKS"]

JOBS = ("tenSteps", "oneStep")


def _ours(site: Site) -> Sequence[Program]:
    made = application(site, "benchmarks.actions_stepping")
    return [made.worker([DEFAULT_QUEUE]), made.web()]


def _async_request(site: Site, job: str) -> Request:
    return signed_request(site, f"{job}Async")


OURS = Stack(
    key="callboard",
    name="Callboard",
    kind="ours",
    settings=(
        "the API and the worker of `callboard up` with its defaults (gunicorn gevent, 1 process; "
        "celery prefork, 2 children per core); every call verifies a JWT and is a run; every step "
        "is sealed and in Valkey, which writes its log to disk once a second, before the next one"
    ),
    programs=_ours,
    request=signed_request,
    jobs=JOBS,
)

OURS_ASYNC = replace(
    OURS,
    key="callboard-async",
    name="Callboard, async",
    settings="the same; the handler is async",
    request=_async_request,
)


def _synced(site: Site) -> Sequence[Program]:
    with redis.Redis.from_url(site.redis_url) as client:
        client.config_set("appendfsync", "always")
    return _ours(site)


OURS_SYNCED = replace(
    OURS,
    key="callboard-synced",
    name="Callboard, synced",
    settings="the same; Valkey writes every change to disk before it answers (appendfsync always)",
    programs=_synced,
)


def _dbos(site: Site) -> Sequence[Program]:
    path = site.folder.path / "dbos.sqlite"
    web = "benchmarks.peers.dbos_fastapi:web"
    return [
        program(
            site,
            "web",
            *("uvicorn", web, "--host", HOST, "--port", str(site.port), "--no-access-log"),
            *("--loop", "uvloop", "--http", "httptools", "--log-level", "warning"),
            DBOS_DATABASE=f"sqlite:///{path}",
        )
    ]


DBOS = Stack(
    key="dbos",
    name="DBOS",
    kind="peer",
    settings=(
        "DBOS Transact with SQLite (its default), in one FastAPI process: the route runs the "
        "workflow; every step is committed, and on disk, before the next one"
    ),
    programs=_dbos,
    jobs=JOBS,
)

STACKS = (OURS, OURS_ASYNC, OURS_SYNCED, DBOS)
