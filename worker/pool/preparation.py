"""Gets the database ready at the worker's start: the declared indexes, and Callboard's own."""

from __future__ import annotations

import threading
from typing import Any

import structlog
from celery import bootsteps

from callboard.errors import ConfigurationError, DatabaseUnavailable
from callboard.processes.threads import supervise

from ..loop.step import LoopStep
from ..tools.indexes import create_indexes

__all__ = ["DatabaseStep"]

AGAIN_SECONDS = 2.0

_log = structlog.get_logger("callboard.worker")


class DatabaseStep(bootsteps.StartStopStep):
    """Makes the indexes beside the first runs, again and again while the database is away."""

    requires = ("celery.worker.components:Pool", LoopStep)

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        self._stopped = threading.Event()

    def start(self, worker: Any) -> None:
        """Called by Celery."""
        services = worker.app.services
        supervise("indexes", lambda: self._prepare(services), self._stopped)

    def stop(self, worker: Any) -> None:
        """Called by Celery."""
        self._stopped.set()

    def _prepare(self, services: Any) -> None:
        while not self._stopped.is_set():
            try:
                create_indexes(services.store.database(), services.registry.collections)
                break
            except DatabaseUnavailable as error:
                _log.warning("indexes wait for the database", why=str(error))
            except ConfigurationError as error:
                _log.error("an index was not made", why=str(error))
                break
            self._stopped.wait(AGAIN_SECONDS)
