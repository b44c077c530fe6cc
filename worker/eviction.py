"""Refuses a Redis that throws keys away when full: a run record that is gone is a lost run."""

from __future__ import annotations

import sys
from typing import Any, cast

from celery import bootsteps

from callboard.broker import guarded
from callboard.errors import BrokerUnavailable

__all__ = ["EvictionStep"]


class EvictionStep(bootsteps.StartStopStep):
    """Looks at the server's own settings before the first run is taken."""

    requires = ("celery.worker.components:Pool",)

    def start(self, worker: Any) -> None:
        """Called by Celery. A server that is away is not waited for: then Celery does."""
        with worker.app.services.connect() as client:
            try:
                with guarded():
                    memory = cast("dict[str, Any]", client.info("memory"))
            except BrokerUnavailable:
                return
        limit, policy = memory.get("maxmemory", 0), memory.get("maxmemory_policy", "noeviction")
        if limit and policy != "noeviction":
            sys.exit(
                f"callboard: Redis has maxmemory {limit} and maxmemory-policy {policy}: when it is "
                f"full it deletes runs that have not ended. Set maxmemory-policy noeviction."
            )
