"""The publisher: makes the runs of fires. Beats, the API and the command line share it."""

from __future__ import annotations

import contextlib
import uuid
from datetime import datetime

from callboard.errors import BrokerUnavailable, DatabaseUnavailable, QueueFull
from callboard.registry import Registry
from callboard.runs.seal import CALL_LIFETIME, Call
from callboard.runs.store import Runs
from callboard.schedules.fires import Fire, Fires
from callboard.sdk.schedule import Schedule
from callboard.settings import Settings

__all__ = ["Publisher"]


class Publisher:
    """Accepts the runs of one application's fires."""

    def __init__(self, settings: Settings, registry: Registry, runs: Runs, fires: Fires) -> None:
        self._settings = settings
        self._registry = registry
        self._runs = runs
        self._fires = fires

    def publish(self, schedule: Schedule, run_id: str, now: datetime) -> None:
        """Have the run of an open fire queued; doing it again changes nothing.

        ``now``: the database's time.

        Raises `QueueFull` and `BrokerUnavailable`: then any beat does it again.
        """
        self._runs.accept(
            run_id,
            self._registry.get(schedule.action),
            Call(
                caller=self._settings.owner_user_id,
                params=dict(schedule.params),
                scheduled=True,
                expires=now.timestamp() + CALL_LIFETIME,
                acceptance=uuid.uuid4().hex,
            ),
            **self._settings.of_accepting,
        )
        with contextlib.suppress(DatabaseUnavailable):  # not marked: published again, no harm
            self._fires.mark_published(run_id, now)

    def trigger(self, schedule: Schedule, now: datetime) -> str:
        """Run the schedule's action now, paused or not, whatever else runs; the run id.

        Raises `QueueFull`, `BrokerUnavailable`, `DatabaseUnavailable`: then it does not run.
        """
        fire = Fire(
            run_id=str(uuid.uuid4()),
            schedule=schedule.name,
            planned=now,
            created=now,
            manual=True,
        )
        self._fires.insert(fire)
        try:
            self.publish(schedule, fire.run_id, now)
        except (QueueFull, BrokerUnavailable):
            self._fires.withdraw(fire.run_id)
            raise
        return fire.run_id
