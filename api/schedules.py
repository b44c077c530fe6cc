"""``/api/schedules``: what runs by itself. For the owner only."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from flask import Blueprint, Response, request

from callboard.clock import DatabaseClock
from callboard.errors import SealError
from callboard.runs.seal import Sealer
from callboard.schedules.enqueue import Publisher
from callboard.schedules.fires import KEPT_ROWS, Fire, Fires
from callboard.schedules.known import Known, KnownSchedules
from callboard.times import iso

from .call.calls import identify
from .errors import envelope
from .numbers import whole_number
from .prefix import run_location
from .services import current_services

__all__ = ["schedules"]

DEFAULT_LIMIT = 100  # fires in a history, schedules in a page
MAX_LIMIT = 1_000

schedules = Blueprint("schedules", __name__)


@schedules.before_request
def _owner_only() -> None:
    current_services().require_owner(identify())


@schedules.get("/api/schedules")
def show_all() -> Response:
    """Every schedule, with its last and its next fire.

    Those that handlers have put, of which there may be many, come in pages: ``?limit=`` (1..1000)
    of them, ``?after=`` the ``after`` of the page before.
    """
    limit = whole_number("limit", request.args.get("limit"), DEFAULT_LIMIT, MAX_LIMIT)
    found, after = _known().page(request.args.get("after"), limit)
    now = _now()
    return _answer({"schedules": [_shown(known, now) for known in found], "after": after})


@schedules.get("/api/schedules/<name>/history")
def history(name: str) -> Response:
    """The last fires of a schedule (``?limit=``, 1..1000), newest first.

    The fires of a schedule that is gone stay until they expire.
    """
    fires = _fires().history(
        name, whole_number("limit", request.args.get("limit"), DEFAULT_LIMIT, KEPT_ROWS)
    )
    if not fires:
        _known().get(name)
    return _answer({"fires": [_shown_fire(fire) for fire in fires]})


@schedules.post("/api/schedules/<name>/trigger")
def trigger(name: str) -> Response:
    """Run the schedule's action now: 202, with the run to look at."""
    known, services = _known().get(name), current_services()
    if known.stored and known.call is None:
        raise SealError(f"No key of SECRET_KEY opens the schedule {name[:64]!r}")
    publisher = Publisher(services.settings, services.registry, services.runs, _fires())
    run_id = publisher.trigger(known.schedule, _now(), known.call)
    body = {"success": True, "data": {"runId": run_id, "status": "queued"}}
    return envelope(body, 202, Location=run_location(run_id), Run_Id=run_id)


@schedules.post("/api/schedules/<name>/pause")
def pause(name: str) -> Response:
    """Fire no more until it is resumed."""
    return _answer(_shown(_known().pause(name, _now()), _now()))


@schedules.post("/api/schedules/<name>/resume")
def resume(name: str) -> Response:
    """Fire again, from now on."""
    return _answer(_shown(_known().resume(name, _now()), _now()))


def _known() -> KnownSchedules:
    services = current_services()
    sealer = Sealer(services.settings.secret_keys)
    return KnownSchedules(services.registry, services.store.database, sealer)


def _fires() -> Fires:
    return Fires(current_services().store.database)


def _answer(data: dict[str, Any]) -> Response:
    return envelope({"success": True, "data": data}, 200)


def _now() -> datetime:
    """The database's time, by which schedules fire."""
    return DatabaseClock(current_services().store.database)()


def _shown(known: Known, now: datetime) -> dict[str, Any]:
    """One that no key opens has neither params nor a caller."""
    schedule, unreadable = known.schedule, known.stored and known.call is None
    shown = {
        "name": schedule.name,
        "action": schedule.action,
        "everyMinutes": schedule.every_minutes,
        "cron": schedule.cron,
        "timezone": schedule.timezone,
        "params": None if unreadable else dict(schedule.params),
        "catchUp": schedule.catch_up,
        "overlap": schedule.overlap,
        "paused": known.paused,
        "lastFire": _iso(known.last_fire),
        "nextFire": _iso(known.next_fire(now)),
    }
    return {**shown, "caller": known.call and known.call.caller} if known.stored else shown


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
