"""The loop processes of a worker, as its main process sees them: started, replaced, waited for."""

from __future__ import annotations

import os
import time
from typing import Any

import structlog
from billiard import get_context
from celery import bootsteps

from callboard.sdk.action import ASYNC_SUFFIX

from ..lease.slots import Slots
from .process import run_loop

__all__ = ["LoopStep"]

LOOK_SECONDS = 0.1
SETTLED_SECONDS = 5.0  # a process that lived for so long is replaced at once
AGAIN_SECONDS = 1.0  # until one that did not
END_SECONDS = 1.0  # behind the grace: then the keeper has killed what was left

_log = structlog.get_logger("callboard.worker")


class LoopStep(bootsteps.StartStopStep):
    """Starts them once the pool runs; none where no action is async.

    Every step that starts a thread requires this one: what a thread holds at a fork, a lock or a
    half-imported module, nobody lets go of in the new process.
    """

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        worker.loops = self._loops = [Loop(worker, slots) for slots in worker.app.services.slots]

    def start(self, worker: Any) -> None:
        """Called by Celery."""
        for loop in self._loops:
            loop.start()

    def register_with_event_loop(self, worker: Any, hub: Any) -> None:
        """Called by Celery."""
        for loop in self._loops:
            hub.call_repeatedly(LOOK_SECONDS, loop.look)

    def stop(self, worker: Any) -> None:
        """Called by Celery, before the pool is: they end when they have nothing in hand."""
        deadline = time.monotonic() + worker.app.services.settings.stop_grace + END_SECONDS
        for loop in self._loops:
            loop.join(deadline)

    def terminate(self, worker: Any) -> None:
        """Called by Celery for a cold shutdown."""
        for loop in self._loops:
            loop.kill()


class Loop:
    """One of them, and after it those that replace it."""

    def __init__(self, worker: Any, slots: Slots) -> None:
        self._worker = worker
        self._slots = slots
        self._process: Any = None
        self._started = self._next = 0.0  # time.monotonic seconds: of the last, of the next

    @property
    def pid(self) -> int | None:
        """Its process id; None while there is none."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start a process."""
        app = self._worker.app
        names = [name + ASYNC_SUFFIX for name in app.amqp.queues.consume_from]
        queues = [app.services.keys.queue(name) for name in names]
        most = self._worker.max_memory_per_child
        arguments = (app, self._worker.hostname, self._slots, queues, most, os.getpid())
        self._process = get_context("fork").Process(target=run_loop, args=arguments, name="loop")
        self._process.daemon = True
        self._process.start()
        self._slots.pid = self._process.pid
        self._started = time.monotonic()

    def look(self) -> None:
        """Have what a dead process had in hand queued again; then start the next."""
        if self._process is not None and self._process.exitcode is not None:
            self._lost()
        elif self._process is None and self._may_start:
            self.start()

    def join(self, deadline: float) -> None:
        """Wait until it has ended; ``deadline``: `time.monotonic` seconds."""
        if self._process is not None:
            self._process.join(max(deadline - time.monotonic(), 0.0))
            if self._process.exitcode is not None:
                self._lost()

    def kill(self) -> None:
        """End it now; its runs go back to their queue."""
        if self._process is not None:
            self._process.kill()
            self._process.join(END_SECONDS)
            self._lost()

    @property
    def _may_start(self) -> bool:
        """Whether all is done about the process before, and the worker goes on."""
        closed = self._worker.app.services.scoreboard.closed
        return not (self._slots.pid or closed) and time.monotonic() >= self._next

    def _lost(self) -> None:
        code, self._process = self._process.exitcode, None
        lived = time.monotonic() - self._started
        self._next = time.monotonic() + (0.0 if lived > SETTLED_SECONDS else AGAIN_SECONDS)
        if code:
            _log.warning("a loop process has died", code=code)
        self._worker.app.keeper.loop_died(self._slots)
