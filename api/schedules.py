"""``/api/schedules``: what runs by itself. For the owner only."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from flask import Blueprint, Response, request

from callboard.clock import DatabaseClock
from callboard.errors import NotFound
from callboard.schedules.enqueue import Publisher
from callboard.schedules.fires import KEPT_ROWS, Fire, Fires
from callboard.schedules.state import Schedules, State
from callboard.schedules.timing import fires_after
from callboard.sdk.schedule import Schedule
from callboard.times import iso

from .call.calls import identify
from .errors import envelope
from .numbers import whole_number
from .prefix import run_location
from .services import current_services

__all__ = ["schedules"]

DEFAULT_LIMIT = 100  # fires in a history

schedules = Blueprint("schedules", __name__)


@schedules.before_request
def _owner_only() -> None:
    current_services().require_owner(identify())


@schedules.get("/api/schedules")
def show_all() -> Response:
    """Every declared schedule, with its last and its next fire."""
    states = _states().states()
    declared, now = current_services().registry.schedules, _now()
    rows = [_shown(entry, states.get(entry.name), now) for entry in declared]
    return _answer({"schedules": rows})


@schedules.get("/api/schedules/<name>/history")
def history(name: str) -> Response:
    """The last fires of a schedule (``?limit=``, 1..1000), newest first.

    The fires of a schedule that was taken out of the code stay until they expire.
    """
    fires = _fires().history(
        name, whole_number("limit", request.args.get("limit"), DEFAULT_LIMIT, KEPT_ROWS)
    )
    if not fires:
        _declared(name)
    return _answer({"fires": [_shown_fire(fire) for fire in fires]})


@schedules.post("/api/schedules/<name>/trigger")
def trigger(name: str) -> Response:
    """Run the schedule's action now: 202, with the run to look at."""
    schedule, services = _declared(name), current_services()
    publisher = Publisher(services.settings, services.registry, services.runs, _fires())
    run_id = publisher.trigger(schedule, _now())
    body = {"success": True, "data": {"runId": run_id, "status": "queued"}}
    return envelope(body, 202, Location=run_location(run_id), Run_Id=run_id)


@schedules.post("/api/schedules/<name>/pause")
def pause(name: str) -> Response:
    """Fire no more until it is resumed."""
    schedule = _declared(name)
    _states().pause(schedule, _now())
    return _answer(_shown(schedule, _states().states().get(name), _now()))


@schedules.post("/api/schedules/<name>/resume")
def resume(name: str) -> Response:
    """Fire again, from now on."""
    schedule = _declared(name)
    _states().resume(schedule, _now())
    return _answer(_shown(schedule, _states().states().get(name), _now()))


def _states() -> Schedules:
    return Schedules(current_services().store.database)


def _fires() -> Fires:
    return Fires(current_services().store.database)


def _declared(name: str) -> Schedule:
    for schedule in current_services().registry.schedules:
        if schedule.name == name:
            return schedule
    raise NotFound(f"No schedule {name[:64]!r}")


def _answer(data: dict[str, Any]) -> Response:
    return envelope({"success": True, "data": data}, 200)


def _now() -> datetime:
    """The database's time, by which schedules fire."""
    return DatabaseClock(current_services().store.database)()


def _shown(schedule: Schedule, state: State | None, now: datetime) -> dict[str, Any]:
    """``state``: None while no beat has seen the schedule."""
    paused = state.paused if state else schedule.paused
    following = None if paused else next(fires_after(schedule, now))
    return {
        "name": schedule.name,
        "action": schedule.action,
        "everyMinutes": schedule.every_minutes,
        "cron": schedule.cron,
        "timezone": schedule.timezone,
        "params": dict(schedule.params),
        "catchUp": schedule.catch_up,
        "overlap": schedule.overlap,
        "paused": paused,
        "lastFire": _iso(state.last_fire if state else None),
        "nextFire": _iso(following),
    }


def _shown_fire(fire: Fire) -> dict[str, Any]:
    return {
        "schedule": fire.schedule,
        "plannedAt": _iso(fire.planned),
        "manual": fire.manual,
        "outcome": fire.outcome,
        "runId": fire.run_id if fire.ran else None,
        "startedAt": _iso(fire.started),
        "completedAt": _iso(fire.completed),
        "attempts": fire.attempts,
    }


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else iso(moment)
