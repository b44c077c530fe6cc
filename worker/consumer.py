"""Celery's consumer, which sends task events in batches and is back soon after an outage.

Celery sends the events of each turn of its loop at once, three PUBLISH a task under load; for
people who watch in Flower a tenth of a second makes no difference. While the broker is away it
asks for it after 2 s, then 4 s, at last every 30 s: runs that are waiting, some of them a dead
worker's, would wait so much longer.
"""

from __future__ import annotations

from typing import Any

import structlog
from celery.worker.consumer import Consumer
from celery.worker.state import maybe_shutdown

__all__ = ["RunConsumer"]

FLUSH_SECONDS = 0.1
RECONNECT_SECONDS = 0.5

_log = structlog.get_logger("callboard.worker")


class RunConsumer(Consumer):
    """Flushes events every `FLUSH_SECONDS`, reconnects every `RECONNECT_SECONDS`."""

    _flush_planned = False
    _away = False  # as we have told

    def on_send_event_buffered(self) -> None:
        """Called by Celery for each event."""
        if self.hub and not self._flush_planned:
            self._flush_planned = True
            self.hub.call_later(FLUSH_SECONDS, self._flush_batch)

    def _flush_batch(self, *_: Any) -> None:
        self._flush_planned = False
        if self.event_dispatcher:
            self.event_dispatcher.flush()

    def ensure_connected(self, conn: Any) -> Any:
        """Called by Celery for each connection; returns when there is one."""
        conn.ensure_connection(
            self._tell_away,
            interval_start=RECONNECT_SECONDS,
            interval_step=0,
            interval_max=RECONNECT_SECONDS,
            callback=maybe_shutdown,
        )
        self._away = False
        return super().ensure_connected(conn)

    def _tell_away(self, error: Exception, interval: float) -> None:
        """Called after each attempt that failed; one line an outage is enough."""
        if not self._away:
            self._away = True
            _log.warning("the broker is away", why=type(error).__name__)
