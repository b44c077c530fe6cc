"""The schedules as the command line sees them: rows, and what may be done to one."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from callboard.clock import DatabaseClock
from callboard.connections.mongodb import Store
from callboard.connections.redis import connect
from callboard.errors import NotFound
from callboard.registry import get_registry
from callboard.runs.seal import Sealer
from callboard.runs.store import Runs
from callboard.schedules.enqueue import Publisher
from callboard.schedules.fires import Fire, Fires
from callboard.schedules.state import Schedules, State
from callboard.schedules.timing import fires_after
from callboard.sdk.schedule import Schedule
from callboard.settings import get_settings

__all__ = ["Timetable", "local"]

Row = dict[str, Any]  # moments are aware datetimes


class Timetable:
    """The schedules of the application that the environment names."""

    def __init__(self) -> None:
        self._registry = get_registry()
        self._store = Store.of(get_settings())
        self._schedules = Schedules(self._store.database)
        self._fires = Fires(self._store.database)
        self._now = DatabaseClock(self._store.database)

    def close(self) -> None:
        """Close the connections."""
        self._store.close()

    def schedules(self) -> list[Row]:
        """Every schedule: ``name, action, when, paused, next, zone, last``."""
        states, now = self._schedules.states(), self._now()
        declared = self._registry.schedules
        return [_shown(schedule, states.get(schedule.name), now) for schedule in declared]

    def history(self, name: str, limit: int) -> list[Row]:
        """The last fires of a schedule, newest first: ``planned, by, outcome, started, seconds,
        attempts, runId``. Raises `NotFound` for an unknown one."""
        fires = self._fires.history(name, limit)
        if not fires:
            self._declared(name)
        return [_fire(fire) for fire in fires]

    def trigger(self, name: str) -> str:
        """Run the action now; the run id."""
        schedule, settings = self._declared(name), get_settings()
        runs = Runs(connect(settings), Sealer(settings.secret_keys), settings.keys)
        publisher = Publisher(settings, self._registry, runs, self._fires)
        return publisher.trigger(schedule, self._now())

    def pause(self, name: str) -> None:
        """Fire no more until it is resumed."""
        self._schedules.pause(self._declared(name), self._now())

    def resume(self, name: str) -> str:
        """Fire again; the next fire, in local time."""
        schedule, now = self._declared(name), self._now()
        self._schedules.resume(schedule, now)
        return local(next(fires_after(schedule, now)))

    def _declared(self, name: str) -> Schedule:
        for schedule in self._registry.schedules:
            if schedule.name == name:
                return schedule
        known = ", ".join(schedule.name for schedule in self._registry.schedules) or "none"
        raise NotFound(f"No schedule {name!r}; declared: {known}")


def _shown(schedule: Schedule, state: State | None, now: datetime) -> Row:
    paused = state.paused if state else schedule.paused
    return {
        "name": schedule.name,
        "action": schedule.action,
        "when": schedule.timing,
        "paused": paused,
        "next": None if paused else next(fires_after(schedule, now)),
        "zone": schedule.timezone or "UTC",
        "last": state.last_fire if state else None,
    }


def _fire(fire: Fire) -> Row:
    took = fire.completed - fire.started if fire.completed and fire.started else None
    return {
        "planned": fire.planned,
        "by": "hand" if fire.manual else "beat",
        "outcome": fire.outcome or ("running" if fire.started else "queued"),
        "started": fire.started,
        "seconds": None if took is None else round(took.total_seconds(), 3),
        "attempts": fire.attempts or None,
        "runId": fire.run_id if fire.ran else None,
    }


def local(moment: datetime | None) -> str:
    """A moment in local time, for people."""
    return "" if moment is None else f"{moment.astimezone():%Y-%m-%d %H:%M:%S %Z}"
