"""What a scheduled run has to do with its fire: it starts only while the fire is open."""

from __future__ import annotations

import contextlib
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import structlog

from callboard.clock import DatabaseClock
from callboard.errors import BrokerUnavailable, DatabaseUnavailable
from callboard.schedules.fires import Fire, Fires

if TYPE_CHECKING:
    from callboard.runs.outcome import Outcome

    from ..services import Services
    from .attempt import Attempt

__all__ = ["close_fire", "take_fire"]

_log = structlog.get_logger("callboard.worker")


def take_fire(services: Services, attempt: Attempt) -> bool:
    """Whether this run may start: True for a run of no schedule. Raises `DatabaseUnavailable`."""
    acceptance = attempt.call.acceptance
    if acceptance is None:
        return True
    database = services.store.database
    now = DatabaseClock(database)()
    fire = Fires(database).take(attempt.run_id, acceptance, attempt.claim.attempt, now)
    if fire is None:
        _log.warning("a fire that had its run already", run_id=attempt.run_id)
        return False
    if fire.started is None and not fire.manual:
        _count_lateness(services, fire, now)
    return True


def _count_lateness(services: Services, fire: Fire, now: datetime) -> None:
    late = (now - fire.planned) // timedelta(milliseconds=1)
    with contextlib.suppress(BrokerUnavailable):  # the run matters more
        services.runs.observe("late", fire.schedule, max(late, 0))


def close_fire(services: Services, attempt: Attempt, outcome: Outcome) -> None:
    """Note the end of a scheduled run; while the database is away, a beat does it later."""
    acceptance = attempt.call.acceptance
    if acceptance is None:
        return
    database = services.store.database
    try:
        Fires(database).close(
            attempt.run_id,
            outcome.status,
            completed=DatabaseClock(database)(),
            attempts=attempt.claim.attempt,
            acceptance=acceptance,
        )
    except DatabaseUnavailable as error:
        _log.warning("the end of a fire is not noted yet", run_id=attempt.run_id, why=str(error))
