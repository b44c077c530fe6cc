"""Celery beat's scheduler: turns the beat until Celery stops it."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

import structlog
from celery.beat import Scheduler

from callboard.applications import ApplicationHeartbeat, Process
from callboard.connections.redis import TIMEOUT
from callboard.errors import CallboardError
from callboard.processes.threads import supervise

from .beat import Beat

__all__ = ["ActionScheduler"]

AGAIN_SECONDS = 1.0  # while the broker or the database is away

_log = structlog.get_logger("callboard.beat")


class ActionScheduler(Scheduler):
    """Fires ``SCHEDULES``. Celery's own periodic tasks are not run: their state is a file's."""

    def setup_schedule(self) -> None:
        """Called by Celery once, before the first `tick`. Does no I/O."""
        services = self.app.services
        self._beat = Beat(services, self.app.oid)
        me = Process.of(services.settings, f"beat {self.app.oid}")
        heartbeat = ApplicationHeartbeat(services.connect(), services.keys, me)
        self._stopped = threading.Event()
        self._shown = supervise("namespace", partial(heartbeat.run, self._stopped), self._stopped)
        names = [schedule.name for schedule in services.registry.schedules]
        _log.info("beat ready", schedules=names)

    def tick(self, *_: Any, **__: Any) -> float:
        """Called by Celery again and again; the seconds until the next time."""
        try:
            return self._beat.turn()
        except CallboardError as error:
            _log.warning("beat waits", why=str(error))
            return AGAIN_SECONDS
        except Exception as error:  # noqa: BLE001 - a beat that ends fires nothing
            _log.error("beat failed", exc_info=error)
            return AGAIN_SECONDS

    def close(self) -> None:
        """Called by Celery at the end."""
        self._stopped.set()
        self._shown.join(TIMEOUT)
        super().close()
