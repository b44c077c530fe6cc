"""The floor below the floor: the handler inside the request."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.stacks.base import Site, Stack, flask_server
from callboard.stack.process import Program

__all__ = ["INLINE"]


def _programs(site: Site) -> Sequence[Program]:
    return [flask_server(site, "benchmarks.peers.inline:web", processes=2)]


INLINE = Stack(
    key="inline",
    name="Flask, inline",
    kind="floor",
    settings="gunicorn gevent, 2 processes; the handler runs in the request: no queue, no worker",
    programs=_programs,
)
