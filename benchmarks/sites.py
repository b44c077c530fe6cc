"""A stack that runs: fresh servers, its processes, and the wait until they answer."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.servers import Database, Watched, start_redis
from benchmarks.stacks.base import Site
from callboard.errors import CallboardError
from callboard.stack.folder import DataFolder
from callboard.stack.ports import free_port
from callboard.stack.process import Program

__all__ = ["running_site", "wait_until"]

START_TIMEOUT = 30.0  # seconds until the first right answer


@contextmanager
def running_site(
    name: str,
    programs: Callable[[Site], Sequence[Program]],
    database: Database,
    *,
    upserts: bool = False,
) -> Iterator[tuple[Site, Watched]]:
    """Start an empty Valkey and these programs; their supervisor runs all but the database.

    ``upserts``: see `Database.fresh`. Raises `ProcessFailed` where a process of it dies.
    """
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as path,
        database.fresh(f"bench_{name}", upserts=upserts) as mongodb_uri,
        Watched() as supervisor,
    ):
        folder = DataFolder(Path(path))
        folder.create()
        site = Site(
            folder=folder,
            redis_url=start_redis(supervisor, folder),
            mongodb_uri=mongodb_uri,
            port=free_port(),
        )
        for program in programs(site):
            supervisor.start(program)
        yield site, supervisor


def wait_until(answers: Callable[[], bool], what: str, supervisor: Watched) -> None:
    """Return at the first right answer; raises `CallboardError` where none comes."""
    deadline = time.monotonic() + START_TIMEOUT
    while not answers():
        supervisor.tick()
        if time.monotonic() > deadline:
            logs = [line for process in supervisor.running for line in process.last_lines(10)]
            raise CallboardError("\n".join([f"{what} does not answer.", *logs]))
