"""The publisher: makes the runs of fires. Beats, the API and the command line share it."""

from __future__ import annotations

import contextlib
import uuid
from dataclasses import replace
from datetime import datetime, timedelta

from callboard.errors import BrokerUnavailable, DatabaseUnavailable, QueueFull
from callboard.registry import Registry
from callboard.runs.seal import CALL_LIFETIME, Call
from callboard.runs.store import Runs
from callboard.schedules.fires import Fire, Fires
from callboard.sdk.schedule import Schedule
from callboard.settings import Settings

__all__ = ["LOOK", "Publisher"]

LOOK = timedelta(seconds=5)  # then a beat looks whether a stored schedule's fire was published


class Publisher:
    """Accepts the runs of one application's fires."""

    def __init__(self, settings: Settings, registry: Registry, runs: Runs, fires: Fires) -> None:
        self._settings = settings
        self._registry = registry
        self._runs = runs
        self._fires = fires

    def publish(
        self, schedule: Schedule, run_id: str, now: datetime, call: Call | None = None
    ) -> None:
        """Have the run of an open fire queued; doing it again changes nothing.

        ``now``: the database's time. ``call``: that of a stored schedule.

        Raises `QueueFull` and `BrokerUnavailable`: then any beat does it again.
        """
        self._runs.accept(
            run_id,
            self._registry.get(schedule.action),
            replace(
                call or self._owners(schedule),
                expires=now.timestamp() + CALL_LIFETIME,
                acceptance=uuid.uuid4().hex,
            ),
            **self._settings.of_accepting,
        )
        with contextlib.suppress(DatabaseUnavailable):  # not marked: published again, no harm
            self._fires.mark_published(run_id, now)

    def _owners(self, schedule: Schedule) -> Call:
        owner = self._settings.owner_user_id
        return Call(caller=owner, params=dict(schedule.params), scheduled=True)

    def trigger(self, schedule: Schedule, now: datetime, call: Call | None = None) -> str:
        """Run the schedule's action now, paused or not, whatever else runs; the run id.

        ``call``: that of a stored schedule.

        Raises `QueueFull`, `BrokerUnavailable`, `DatabaseUnavailable`: then it does not run.
        """
        fire = Fire(
            run_id=str(uuid.uuid4()),
            schedule=schedule.name,
            planned=now,
            created=now,
            manual=True,
            action=schedule.action if call else None,
            look_at=now + LOOK if call else None,
        )
        self._fires.insert(fire)
        try:
            self.publish(schedule, fire.run_id, now, call)
        except (QueueFull, BrokerUnavailable):
            self._fires.withdraw(fire.run_id)
            raise
        return fire.run_id
