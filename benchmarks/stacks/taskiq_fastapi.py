"""FastAPI + taskiq."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.stacks.base import HOST, Site, Stack, program
from callboard.stack.process import Program

__all__ = ["TASKIQ_FASTAPI"]


def _programs(site: Site) -> Sequence[Program]:
    app = "benchmarks.peers.taskiq_fastapi"
    worker = program(
        site,
        "worker",
        *("taskiq", "worker", f"{app}:broker", "--workers", "2", "--no-parse"),
        *("--log-level", "WARNING"),
    )
    web = program(
        site,
        "web",
        *("uvicorn", f"{app}:web", "--host", HOST, "--port", str(site.port)),
        *("--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"),
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
