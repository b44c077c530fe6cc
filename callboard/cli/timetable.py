"""The schedules as the command line sees them: rows, and what may be done to one."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from callboard.clock import DatabaseClock
from callboard.connections.mongodb import Store
from callboard.connections.redis import connect
from callboard.errors import NotFound, SealError
from callboard.registry import get_registry
from callboard.runs.seal import Sealer
from callboard.runs.store import Runs
from callboard.schedules.enqueue import Publisher
from callboard.schedules.fires import Fire, Fires
from callboard.schedules.known import Known, KnownSchedules
from callboard.settings import get_settings

__all__ = ["Timetable", "local"]

Row = dict[str, Any]  # moments are aware datetimes


class Timetable:
    """The schedules of the application that the environment names."""

    def __init__(self) -> None:
        self._registry = get_registry()
        self._store = Store.of(get_settings())
        sealer = Sealer(get_settings().secret_keys)
        self._known = KnownSchedules(self._registry, self._store.database, sealer)
        self._fires = Fires(self._store.database)
        self._now = DatabaseClock(self._store.database)

    def close(self) -> None:
        """Close the connections."""
        self._store.close()

    def schedules(self, after: str | None, limit: int) -> tuple[list[Row], str | None]:
        """A page of schedules: ``name, action, when, paused, next, zone, last``; and behind which
        the next one begins, if there is one."""
        found, following = self._known.page(after, limit)
        now = self._now()
        return [_shown(known, now) for known in found], following

    def history(self, name: str, limit: int) -> list[Row]:
        """The last fires of a schedule, newest first: ``planned, by, outcome, started, seconds,
        attempts, runId``. Raises `NotFound` for an unknown one."""
        fires = self._fires.history(name, limit)
        if not fires:
            self._get(name)
        return [_fire(fire) for fire in fires]

    def trigger(self, name: str) -> str:
        """Run the action now; the run id."""
        known, settings = self._get(name), get_settings()
        if known.stored and known.call is None:
            raise SealError(f"No key of SECRET_KEY opens the schedule {name!r}")
        runs = Runs(connect(settings), Sealer(settings.secret_keys), settings.keys)
        publisher = Publisher(settings, self._registry, runs, self._fires)
        return publisher.trigger(known.schedule, self._now(), known.call)

    def pause(self, name: str) -> None:
        """Fire no more until it is resumed."""
        self._get(name)
        self._known.pause(name, self._now())

    def resume(self, name: str) -> str:
        """Fire again; the next fire, in local time."""
        self._get(name)
        now = self._now()
        return local(self._known.resume(name, now).next_fire(now))

    def _get(self, name: str) -> Known:
        try:
            return self._known.get(name)
        except NotFound:
            declared = ", ".join(schedule.name for schedule in self._registry.schedules) or "none"
            raise NotFound(f"No schedule {name!r}; declared: {declared}") from None


def _shown(known: Known, now: datetime) -> Row:
    schedule = known.schedule
    return {
        "name": schedule.name,
        "action": schedule.action,
        "when": schedule.timing,
        "paused": known.paused,
        "next": known.next_fire(now),
        "zone": schedule.timezone or "UTC",
        "last": known.last_fire,
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
