"""Stacks whose handlers start others; each has a worker for the parents, and one for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from benchmarks.stacks.base import HOST, Request, Site, Stack, flask_server, program
from benchmarks.stacks.ours import application, signed_request
from callboard.sdk.options import DEFAULT_QUEUE
from callboard.stack.process import Program

__all__ = ["CELERY", "OURS", "STACKS", "TASKIQ"]

ALL = ("startEach", "startMany", "latency", "join")


def _ours(site: Site) -> Sequence[Program]:
    made = application(site, "benchmarks.actions_starting", CALLBOARD_MAX_QUEUE="1000000")
    parents = replace(made, workers=1)
    return [made.worker([DEFAULT_QUEUE]), parents.worker(["parents"]), made.web()]


def _request(site: Site, job: str) -> Request:
    request = signed_request(site, job)
    return replace(request, headers={**request.headers, "Prefer": "wait=120"})


OURS = Stack(
    key="callboard",
    name="Callboard",
    kind="ours",
    settings=(
        "the API and the worker of `callboard up` with its defaults (celery prefork, 2 children "
        "per core), a worker of 1 child for the parents; every run has a record, its params and "
        "result are sealed; CALLBOARD_MAX_QUEUE lets all wait that nobody serves"
    ),
    programs=_ours,
    request=_request,
    jobs=(*ALL, "latencyCommitted"),
)


def _celery_worker(site: Site, name: str, queue: str, concurrency: int) -> Program:
    return program(
        site,
        name,
        *("celery", "-A", "benchmarks.peers.celery_starts:app", "worker", "--loglevel", "WARNING"),
        *("--concurrency", str(concurrency), "--queues", queue, "--hostname", f"{name}@%h"),
        *("--without-mingle", "--without-gossip", "--without-heartbeat"),
    )


def _celery(site: Site) -> Sequence[Program]:
    return [
        _celery_worker(site, "worker", "celery", 2),
        _celery_worker(site, "worker-parents", "parents", 1),
        flask_server(site, "benchmarks.peers.celery_starts:web"),
    ]


CELERY = Stack(
    key="celery",
    name="Celery",
    kind="peer",
    settings=(
        "prefork, 2 children, prefetch 4 (default), early acknowledgement, no gossip, mingle, "
        "heartbeat or events, a worker of 1 child for the parents; results in Redis for the "
        "chord alone"
    ),
    programs=_celery,
    jobs=ALL,
)


def _taskiq_worker(site: Site, name: str, broker: str, processes: int) -> Program:
    return program(
        site,
        name,
        *("taskiq", "worker", f"benchmarks.peers.taskiq_starts:{broker}"),
        *("--workers", str(processes), "--no-parse", "--log-level", "WARNING"),
    )


def _taskiq(site: Site) -> Sequence[Program]:
    return [
        _taskiq_worker(site, "worker", "broker", 2),
        _taskiq_worker(site, "worker-parents", "parents", 1),
        program(
            site,
            "web",
            *("uvicorn", "benchmarks.peers.taskiq_starts:web", "--host", HOST),
            *("--port", str(site.port), "--no-access-log", "--log-level", "warning"),
        ),
    ]


TASKIQ = Stack(
    key="taskiq",
    name="taskiq",
    kind="peer",
    settings=(
        "2 processes, --no-parse, list queue, no results, a process for the parents; at once: "
        "16 coroutines, a connection each"
    ),
    programs=_taskiq,
    jobs=("startEach", "startMany", "latency"),
)

STACKS = (OURS, CELERY, TASKIQ)
