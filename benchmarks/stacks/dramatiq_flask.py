"""Flask + dramatiq with results."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.stacks.base import Site, Stack, flask_server, program
from callboard.stack.process import Program

__all__ = ["DRAMATIQ_FLASK"]


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
