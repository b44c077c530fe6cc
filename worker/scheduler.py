"""Celery beat's scheduler: plans the fires of ``SCHEDULES`` and starts their runs.

A fire's run id is derived from the schedule's name and the planned time, so two beats that
plan the same fire mean the same run.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import structlog
from celery.beat import Scheduler
from cronsim import CronSim

from callboard import presence
from callboard.errors import CallboardError
from callboard.runs import Runs
from callboard.schedule import Schedule
from callboard.seal import Call
from worker.services import Services

__all__ = ["ActionScheduler", "fires_after", "run_id_of"]

ALIVE_SECONDS = 5
_FIRES = uuid.UUID("f9b7c1de-4ce5-5f0b-a5a4-64a1b8a0c6c1")  # the namespace of fires' run ids

_log = structlog.get_logger("callboard.beat")


def run_id_of(schedule: Schedule, planned: datetime) -> str:
    """The run id of the fire of ``schedule`` that is planned for this moment."""
    return str(uuid.uuid5(_FIRES, f"{schedule.name} {planned.astimezone(UTC).isoformat()}"))


def fires_after(schedule: Schedule, moment: datetime) -> Iterator[datetime]:
    """The planned times after ``moment``, in UTC, without end."""
    if schedule.every_minutes is not None:
        step = schedule.every_minutes * 60
        seconds = int(moment.timestamp()) // step * step
        while True:
            seconds += step
            yield datetime.fromtimestamp(seconds, UTC)
    zone = ZoneInfo(schedule.timezone or "UTC")
    for planned in CronSim(schedule.cron or "", moment.astimezone(zone)):
        yield planned.astimezone(UTC)


class ActionScheduler(Scheduler):
    """Fires each schedule at its planned times."""

    def __init__(self, app: Any, **options: Any) -> None:
        self._services: Services = app.services
        self._redis = self._services.connect()
        self._runs = Runs(self._redis, self._services.sealer)
        self._next: dict[str, datetime] = {}
        super().__init__(app, **options)

    def setup_schedule(self) -> None:
        """Called by Celery once, before the first `tick`."""
        now = datetime.now(UTC)
        for schedule in self._services.registry.schedules:
            self._next[schedule.name] = next(fires_after(schedule, now))

    def tick(self, *_: Any, **__: Any) -> float:
        """Start what is due; seconds until the next look."""
        now = datetime.now(UTC)
        try:
            presence.show(self._redis, presence.BEAT + self.app.oid, "", ALIVE_SECONDS)
            for schedule in self._services.registry.schedules:
                planned = self._next[schedule.name]
                if planned <= now:
                    if not schedule.paused:
                        self._fire(schedule, planned)
                    self._next[schedule.name] = next(fires_after(schedule, now))
        except CallboardError as error:
            _log.warning("beat waits", why=str(error))
            return 1.0
        soonest = min(self._next.values(), default=now + timedelta(seconds=1))
        return float(min(max((soonest - datetime.now(UTC)).total_seconds(), 0.01), 1.0))

    def _fire(self, schedule: Schedule, planned: datetime) -> None:
        settings, registry = self._services.settings, self._services.registry
        run_id = run_id_of(schedule, planned)
        self._runs.accept(
            run_id,
            registry.get(schedule.action),
            Call(caller=settings.owner_user_id, params=schedule.params, scheduled=True),
            max_queue=settings.max_queue,
            result_ttl=settings.result_ttl,
        )
        _log.info("fired", schedule=schedule.name, planned=planned.isoformat(), run_id=run_id)
