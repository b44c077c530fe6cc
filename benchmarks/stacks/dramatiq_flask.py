"""Flask + dramatiq with results."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.jobs import WAIT
from benchmarks.stacks.base import Site, Stack, flask_server, program
from callboard.stack.process import Program

__all__ = ["DRAMATIQ_FLASK", "DRAMATIQ_GEVENT"]


def _programs(site: Site) -> Sequence[Program]:
    app = "benchmarks.peers.dramatiq_flask"
    worker = program(site, "worker", "dramatiq", app, "--processes", "2", "--threads", "8")
    return [worker, flask_server(site, f"{app}:web", config="gunicorn_gthread")]


DRAMATIQ_FLASK = Stack(
    key="dramatiq",
    name="Flask + dramatiq results",
    kind="peer",
    settings=(
        "gunicorn gthread, 1 process of 64 threads (gevent gives half the calls); dramatiq, 2 "
        "processes of 8 threads (its defaults on two cores)"
    ),
    programs=_programs,
)


def _waiting(site: Site) -> Sequence[Program]:
    app = "benchmarks.peers.dramatiq_flask"
    options = ("--processes", "1", "--threads", "1024")
    worker = program(site, "worker", "benchmarks.peers.dramatiq_gevent", app, *options)
    return [worker, flask_server(site, f"{app}:web")]


DRAMATIQ_GEVENT = Stack(
    key="dramatiq-gevent",
    name="Flask + dramatiq, gevent",
    kind="peer",
    settings=(
        "gunicorn gevent, 1 process; dramatiq-gevent, 1 process of 1,024 greenlets (as its help "
        "has it)"
    ),
    programs=_waiting,
    jobs=(WAIT,),
)
