"""Celery's consumer, which is back soon after an outage of the broker.

Celery asks for it after 2 s, then 4 s, at last every 30 s: runs that are waiting, some of them a
dead worker's, would wait so much longer.
"""

from __future__ import annotations

from typing import Any

import structlog
from celery.worker.consumer import Consumer
from celery.worker.state import maybe_shutdown

__all__ = ["RunConsumer"]

RECONNECT_SECONDS = 0.5

_log = structlog.get_logger("callboard.worker")


class RunConsumer(Consumer):
    """Reconnects every `RECONNECT_SECONDS`."""

    _away = False  # as we have told

    def ensure_connected(self, conn: Any) -> Any:
        """Called by Celery for each connection; returns when there is one."""
        conn.ensure_connection(
            self._log_away,
            interval_start=RECONNECT_SECONDS,
            interval_step=0,
            interval_max=RECONNECT_SECONDS,
            callback=maybe_shutdown,
        )
        self._away = False
        return super().ensure_connected(conn)

    def _log_away(self, error: Exception, interval: float) -> None:
        """Called after each attempt that failed; one line an outage is enough."""
        if not self._away:
            self._away = True
            _log.warning("the broker is away", why=f"{type(error).__name__}: {error}"[:300])
