"""What a scheduled run has to do with its fire: it starts only while the fire is open."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog

from callboard import store
from callboard.errors import DatabaseUnavailable
from callboard.fires import Fires

if TYPE_CHECKING:
    from callboard.outcome import Outcome
    from worker.execution import Attempt

__all__ = ["close_fire", "take_fire"]

_log = structlog.get_logger("callboard.worker")


def take_fire(attempt: Attempt) -> bool:
    """Whether this run may start: True for a run of no schedule. Raises `DatabaseUnavailable`."""
    acceptance = attempt.call.acceptance
    if acceptance is None:
        return True
    taken = Fires(store.database).take(
        attempt.run_id, acceptance, attempt.claim.attempt, datetime.now(UTC)
    )
    if not taken:
        _log.warning("a fire that had its run already", run_id=attempt.run_id)
    return taken


def close_fire(attempt: Attempt, outcome: Outcome) -> None:
    """Note the end of a scheduled run; while the database is away, a beat does it later."""
    acceptance = attempt.call.acceptance
    if acceptance is None:
        return
    try:
        Fires(store.database).close(
            attempt.run_id,
            outcome.status,
            completed=datetime.now(UTC),
            attempts=attempt.claim.attempt,
            acceptance=acceptance,
        )
    except DatabaseUnavailable as error:
        _log.warning("the end of a fire is not noted yet", run_id=attempt.run_id, why=str(error))
