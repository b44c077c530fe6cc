"""Refuses a Redis that throws keys away when full: a run record that is gone is a lost run."""

from __future__ import annotations

import sys
from typing import Any

import structlog
from celery import bootsteps

from callboard.connections.redis import evicts
from callboard.errors import BrokerUnavailable

__all__ = ["EvictionStep"]

_log = structlog.get_logger("callboard.worker")


class EvictionStep(bootsteps.StartStopStep):
    """Looks at the server's own settings before the first run is taken."""

    requires = ("celery.worker.components:Pool",)

    def start(self, worker: Any) -> None:
        """Called by Celery. A server that is away is not waited for: then Celery does."""
        with worker.app.services.connect() as client:
            try:
                policy = evicts(client)
            except BrokerUnavailable:
                return
        if policy is None:
            _log.warning(
                "Redis does not say what it does when it is full: see to it that its "
                "maxmemory-policy is noeviction"
            )
        if policy:
            sys.exit(
                f"callboard: Redis has {policy}: when it is full it deletes runs that have not "
                f"ended. Set maxmemory-policy noeviction."
            )
