"""Strays: processes of runs whose child was killed, or died, before it could end them (Linux).

The worker's main process adopts them. It knows its own children: those of the pool, and what was
there before the pool. Whatever else it has twice in a row is a stray: the first look may come
between the fork of a child and its entry in the pool's books.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Sequence
from typing import Any

import structlog
from celery import bootsteps

from callboard.processes.orphans import adopt_orphans, children, end
from callboard.processes.threads import supervise

from ..loop.step import LoopStep
from ..runs.descendants import is_helper

__all__ = ["Strays", "StraysStep", "end_strays"]

LOOK_SECONDS = 0.15
END_SECONDS = 1.0  # for those that are there when the worker ends

_log = structlog.get_logger("callboard.worker")


_started: list[Strays] = []  # of this worker: one, once its pool runs


@atexit.register
def end_strays() -> None:
    """End those that are there when the worker's main process is about to end. Else nothing."""
    for strays in _started:
        strays.end_all()


class Strays:
    """Those of one worker."""

    def __init__(self, pool: Any, loops: Sequence[Any] = ()) -> None:
        """``pool``: Celery's, which runs; ``loops``: `worker.loop.step.Loop`, beside it. From now
        on this process adopts orphans."""
        self._pool = pool
        self._loops = loops
        self._process = os.getpid()
        self._own = set(children(self._process)) - self._pooled()
        self._seen: set[int] = set()
        self._stopped = threading.Event()
        adopt_orphans()

    def start(self) -> None:
        """Look for strays until the process ends, and once more then."""
        supervise("strays", self._watch, self._stopped)
        _started.append(self)

    def end_all(self) -> None:
        """End those that are there: the pool is gone, or goes with this process."""
        if os.getpid() != self._process:  # a fork that leaves in an orderly way
            return
        self._stopped.set()
        deadline = time.monotonic() + END_SECONDS
        while (strays := self._strays()) and time.monotonic() < deadline:
            end(strays, deadline)

    def look(self) -> None:
        """End the strays that the last look has seen, too."""
        strays = self._strays()
        if again := strays & self._seen:
            _log.warning("processes of a lost run ended", pids=sorted(again)[:20])
            end(again, time.monotonic() + END_SECONDS)
        self._seen = strays

    def _watch(self) -> None:
        while not self._stopped.wait(LOOK_SECONDS):
            self.look()

    def _strays(self) -> set[int]:
        found = set(children(self._process, thread=self._process)) - self._own
        if not found:
            return found
        return {pid for pid in found - self._pooled() if not is_helper(pid)}

    def _pooled(self) -> set[int]:
        """The processes of the pool, none once it has ended, and those of the loops."""
        loops = {loop.pid for loop in self._loops if loop.pid}
        try:
            return loops | set(self._pool.info["processes"])
        except AttributeError:
            return loops


class StraysStep(bootsteps.StartStopStep):
    """Starts the look-out once the pool runs."""

    requires = ("celery.worker.components:Pool", LoopStep)

    def start(self, worker: Any) -> None:
        """Called by Celery."""
        Strays(worker.pool, worker.loops).start()
