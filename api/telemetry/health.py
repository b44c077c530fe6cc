"""Probes: alive, and ready for calls."""

from __future__ import annotations

from flask import Blueprint, Response

from callboard.clock import ClockWatch, DatabaseClock, ahead_of_broker, deviation
from callboard.errors import DatabaseUnavailable, NotReady
from callboard.processes import threads

from ..errors import envelope
from ..services import current_services

__all__ = ["health"]

_watch = ClockWatch("broker")
health = Blueprint("health", __name__)


@health.get("/healthz")
def alive() -> Response:
    """200 while the process answers at all."""
    return envelope({"success": True, "data": {"status": "alive"}}, 200)


@health.get("/readyz")
def ready() -> Response:
    """200 while calls can be enqueued; 503 while the broker, the key set or a thread is away, or
    this machine's clock is off: it would refuse good tokens, or take old ones."""
    if dead := threads.down():
        raise NotReady(f"Not ready: {', '.join(dead)} failed; the log says why")
    current_services().verifier.require()
    ahead = ahead_of_broker(current_services().redis)
    _watch.note(ahead)
    if (off := deviation(ahead)) and _is_off_from_the_database():
        raise NotReady(f"Not ready: this machine's clock is {off}, say broker and database")
    return envelope({"success": True, "data": {"status": "ready"}}, 200)


def _is_off_from_the_database() -> bool:
    """Two clocks decide which of three is wrong; a database that is away has no say."""
    clock = DatabaseClock(current_services().store.database)
    try:
        clock()
    except DatabaseUnavailable:
        return False
    return deviation(clock.ahead) is not None
