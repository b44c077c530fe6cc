"""The schedules as the command line sees them: tables, and what may be done to one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from rich.table import Table

from callboard import store
from callboard.broker import connect
from callboard.errors import NotFound
from callboard.fires import Fire, Fires
from callboard.publisher import Publisher
from callboard.registry import get_registry
from callboard.runs import Runs
from callboard.schedule import Schedule
from callboard.schedules import Schedules, State
from callboard.seal import Sealer
from callboard.settings import get_settings
from callboard.timing import fires_after

__all__ = ["Timetable"]


class Timetable:
    """The schedules of the application that the environment names."""

    def __init__(self) -> None:
        self._registry = get_registry()
        self._schedules = Schedules(store.database)
        self._fires = Fires(store.database)

    def table(self) -> Table:
        """Every schedule, with its next fire in its own and in local time."""
        columns = ("name", "action", "when", "next, schedule time", "next, local time", "last")
        table = Table(*columns, box=None, pad_edge=False)
        states = self._schedules.states()
        for schedule in self._registry.schedules:
            state = states.get(schedule.name)
            table.add_row(
                schedule.name,
                schedule.action,
                schedule.timing,
                *_following(schedule, state),
                _local(state.last_fire if state else None),
            )
        return table

    def history(self, name: str, limit: int) -> Table:
        """The last fires of a schedule, newest first; raises `NotFound` for an unknown one."""
        columns = ("planned, local time", "by", "outcome", "started", "took", "attempts", "run")
        table = Table(*columns, box=None, pad_edge=False)
        fires = self._fires.history(name, limit)
        if not fires:
            self._declared(name)
        for fire in fires:
            table.add_row(*_cells(fire))
        return table

    def trigger(self, name: str) -> str:
        """Run the action now; the run id."""
        schedule, settings = self._declared(name), get_settings()
        runs = Runs(connect(settings), Sealer(settings.secret_keys))
        publisher = Publisher(settings, self._registry, runs, self._fires)
        return publisher.trigger(schedule, datetime.now(UTC))

    def pause(self, name: str) -> None:
        """Fire no more until it is resumed."""
        self._schedules.pause(self._declared(name), datetime.now(UTC))

    def resume(self, name: str) -> str:
        """Fire again; the next fire, in local time."""
        schedule, now = self._declared(name), datetime.now(UTC)
        self._schedules.resume(schedule, now)
        return _local(next(fires_after(schedule, now)))

    def _declared(self, name: str) -> Schedule:
        for schedule in self._registry.schedules:
            if schedule.name == name:
                return schedule
        known = ", ".join(schedule.name for schedule in self._registry.schedules) or "none"
        raise NotFound(f"No schedule {name!r}; declared: {known}")


def _following(schedule: Schedule, state: State | None) -> Sequence[str]:
    if state.paused if state else schedule.paused:
        return ("paused", "paused")
    planned = next(fires_after(schedule, datetime.now(UTC)))
    zone = ZoneInfo(schedule.timezone or "UTC")
    return (f"{planned.astimezone(zone):%Y-%m-%d %H:%M:%S %Z}", _local(planned))


def _cells(fire: Fire) -> Sequence[str]:
    took = fire.completed - fire.started if fire.completed and fire.started else None
    return (
        _local(fire.planned),
        "hand" if fire.manual else "beat",
        fire.outcome or ("running" if fire.started else "queued"),
        _local(fire.started),
        f"{took.total_seconds():.1f} s" if took is not None else "",
        str(fire.attempts or ""),
        fire.run_id if fire.ran else "",
    )


def _local(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment.astimezone():%Y-%m-%d %H:%M:%S %Z}"
