"""The schedules of an application, declared ones and stored ones, as the owner looks at them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from pymongo.database import Database

from callboard.connections.mongodb import Document
from callboard.errors import NotFound, SealError
from callboard.registry import Registry
from callboard.runs.seal import Call, Sealer
from callboard.schedules.state import Schedules, State
from callboard.schedules.stored import StoredSchedules, schedule_of
from callboard.schedules.timing import fires_after
from callboard.sdk.schedule import Schedule

__all__ = ["Known", "KnownSchedules"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """One schedule."""

    schedule: Schedule
    state: State | None  # None: declared, and no beat has seen it
    stored: bool = False
    call: Call | None = None  # of a stored one; None: no key opens it

    @property
    def paused(self) -> bool:
        """Whether it fires at all for now."""
        return self.state.paused if self.state else self.schedule.paused

    @property
    def last_fire(self) -> datetime | None:
        """The last planned time that has come."""
        return self.state.last_fire if self.state else None

    def next_fire(self, now: datetime) -> datetime | None:
        """None while it is paused."""
        return None if self.paused else next(fires_after(self.schedule, now))


class KnownSchedules:
    """Those of one application. Every method raises `DatabaseUnavailable`."""

    def __init__(
        self, registry: Registry, database: Callable[[], Database[Document]], sealer: Sealer
    ) -> None:
        self._declared = {schedule.name: schedule for schedule in registry.schedules}
        self._states = Schedules(database)
        self._stored = StoredSchedules(database, sealer)

    def page(self, after: str | None, limit: int) -> tuple[list[Known], str | None]:
        """Stored ones in the order of their names, after this one, and behind which the next page
        begins. The first page (None) has all declared ones in front."""
        rows = self._stored.after(after or "", limit + 1)
        known = [self._of(row) for row in rows[:limit]]
        following = rows[limit - 1]["_id"] if len(rows) > limit else None
        return (self.declared() if after is None else []) + known, following

    def declared(self) -> list[Known]:
        """Those of the code, in its order."""
        states = self._states.states()
        return [
            Known(schedule=schedule, state=states.get(name))
            for name, schedule in self._declared.items()
        ]

    def get(self, name: str) -> Known:
        """The one of this name. Raises `NotFound`."""
        if schedule := self._declared.get(name):
            return Known(schedule=schedule, state=self._states.states().get(name))
        if row := self._stored.find(name):
            return self._of(row)
        raise NotFound(f"No schedule {name[:64]!r}")

    def pause(self, name: str, now: datetime) -> Known:
        """Fire no more until `resume`. Raises `NotFound`."""
        known = self.get(name)
        if known.stored:
            self._stored.pause(name, now)
        else:
            self._states.pause(known.schedule, now)
        return self.get(name)

    def resume(self, name: str, now: datetime) -> Known:
        """Fire again, from now on. Raises `NotFound`."""
        known = self.get(name)
        if known.stored:
            self._stored.resume(name, now)
        else:
            self._states.resume(known.schedule, now)
        return self.get(name)

    def _of(self, row: Document) -> Known:
        try:
            call = self._stored.call_of(row)
        except SealError:
            call = None
        schedule = schedule_of(row, call.params if call else {})
        return Known(schedule=schedule, state=State.of(row), stored=True, call=call)
