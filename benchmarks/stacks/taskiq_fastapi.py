"""FastAPI + taskiq."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.jobs import WAIT
from benchmarks.stacks.base import HOST, Site, Stack, program
from callboard.stack.process import Program

__all__ = ["TASKIQ_ASYNC", "TASKIQ_FASTAPI"]

WAITING_POLL = "0.2"  # seconds


def _programs(site: Site) -> Sequence[Program]:
    return _processes(site)


def _waiting(site: Site) -> Sequence[Program]:
    return _processes(site, "--max-async-tasks", "1000", TASKIQ_POLL=WAITING_POLL)


def _processes(site: Site, *options: str, **environment: str) -> Sequence[Program]:
    app = "benchmarks.peers.taskiq_fastapi"
    worker = program(
        site,
        "worker",
        *("taskiq", "worker", f"{app}:broker", "--workers", "2", "--no-parse"),
        *("--log-level", "WARNING"),
        *options,
    )
    web = program(
        site,
        "web",
        *("uvicorn", f"{app}:web", "--host", HOST, "--port", str(site.port)),
        *("--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"),
        **environment,
    )
    return [worker, web]


TASKIQ_FASTAPI = Stack(
    key="taskiq",
    name="FastAPI + taskiq",
    kind="peer",
    settings=(
        "uvicorn with uvloop and httptools, 1 process; taskiq, 2 processes (its default; 1 gives "
        "the same), --no-parse, list queue, results in Redis polled every 2 ms (default 200), "
        "async handlers on PyMongo's async client"
    ),
    programs=_programs,
)

TASKIQ_ASYNC = Stack(
    key="taskiq-async",
    name="FastAPI + taskiq",
    kind="peer",
    settings=(
        f"the same with --max-async-tasks 1000 (default 100); results polled every {WAITING_POLL} s"
    ),
    programs=_waiting,
    jobs=(WAIT,),
)
