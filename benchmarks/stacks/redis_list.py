"""The floor: the same Flask route over bare Redis lists."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.stacks.base import Site, Stack, flask_server, workers
from callboard.stack.process import Program

__all__ = ["REDIS_LIST"]


def _programs(site: Site) -> Sequence[Program]:
    app = "benchmarks.peers.redis_list"
    return [*workers(site, 2, app), flask_server(site, f"{app}:web", processes=2)]


REDIS_LIST = Stack(
    key="redis",
    name="Flask + bare Redis list",
    kind="floor",
    settings=(
        "gunicorn gevent, 2 processes; 2 plain Python workers in BRPOP, a reply list per call; a "
        "killed worker loses its job"
    ),
    programs=_programs,
)
