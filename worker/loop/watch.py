"""The watch: says which handler blocks the loop, and where it stands."""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from collections.abc import Callable, Collection

import structlog

from callboard.processes.threads import supervise

from .running import Running

__all__ = ["BLOCKED_SECONDS", "Watch"]

BLOCKED_SECONDS = 0.5
LOOK_SECONDS = 0.25
FRAMES = 12  # of the stack: the innermost

_log = structlog.get_logger("callboard.worker")


class Watch:
    """A thread that looks after one event loop. ``runs``: what it has in hand."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, runs: Callable[[], Collection[Running]]
    ) -> None:
        """To be made in the loop's own thread."""
        self._loop = loop
        self._runs = runs
        self._thread = threading.get_ident()
        self._stopped = threading.Event()

    def start(self) -> None:
        """Watch until `stop`."""
        supervise("watch", self._watch, self._stopped)

    def stop(self) -> None:
        """Watch no more."""
        self._stopped.set()

    def _watch(self) -> None:
        while not self._stopped.wait(LOOK_SECONDS):
            responded = threading.Event()
            self._loop.call_soon_threadsafe(responded.set)
            if not responded.wait(BLOCKED_SECONDS) and not self._stopped.is_set():
                self._log_blocked()
                responded.wait()

    def _log_blocked(self) -> None:
        running = self._blocking()
        stack = traceback.extract_stack(sys._current_frames().get(self._thread))[-FRAMES:]
        _log.warning(
            "a handler blocks the loop: all other async runs of this process wait",
            action=running.action.name if running else None,
            run_id=running.run_id if running else None,
            stack="".join(traceback.format_list(stack)),
            next="await what waits, and give what computes to asyncio.to_thread or a plain action",
        )

    def _blocking(self) -> Running | None:
        """The run whose task the loop is at; None where it is at none."""
        task = asyncio.current_task(self._loop)
        if task is None:
            return None
        return next((running for running in tuple(self._runs()) if task in running.tasks), None)
