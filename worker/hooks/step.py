"""The start of a worker waits for the process hooks; one that raises ends it with its reason."""

from __future__ import annotations

import sys
import time
from typing import Any

from celery import bootsteps, signals
from celery.worker import state

from ..loop.step import LoopStep

__all__ = ["HooksStep"]

START_SECONDS = 30.0  # as Celery's `worker_proc_alive_timeout`, for children that come later
LOOK_SECONDS = 0.02


class HooksStep(bootsteps.StartStopStep):
    """Nothing is taken, and no sign of life shown, before all processes are ready."""

    requires = ("celery.worker.components:Pool", LoopStep)

    def __init__(self, worker: Any, **options: Any) -> None:
        """Before anything is forked."""
        super().__init__(worker, **options)
        services = worker.app.services
        self._reports = services.reports  # made here, for all that are forked
        self._hooks = services.registry.hooks.process
        signals.worker_process_shutdown.connect(lambda **_: services.resources.close(), weak=False)

    def start(self, worker: Any) -> None:
        """Called by Celery."""
        if not self._hooks:
            return
        pids = {*worker.pool.info["processes"], *(loop.pid for loop in worker.loops if loop.pid)}
        deadline = time.monotonic() + START_SECONDS
        while not self._reports.are_ready(pids):
            state.maybe_shutdown()  # raises, if a signal has told the worker to end
            if failures := self._reports.failures():
                sys.exit(f"callboard: {failures[0]}")
            if time.monotonic() > deadline:
                late = self._reports.waiting(0.0) or ["a process hook"]
                sys.exit(f"callboard: {late[0]} within {START_SECONDS:g} s")
            time.sleep(LOOK_SECONDS)
