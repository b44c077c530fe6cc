"""What a scheduled run has to do with its fire: it starts only while the fire is open."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import structlog

from callboard.clock import AsyncDatabaseClock, DatabaseClock
from callboard.connections.mongodb import AsyncStore
from callboard.errors import BrokerUnavailable, DatabaseUnavailable
from callboard.sans_io import Steps, awaited, plain
from callboard.schedules.fires import AsyncFires, Fires

if TYPE_CHECKING:
    from callboard.runs.outcome import Outcome

    from ..services import Services
    from .attempt import Attempt

__all__ = ["close_fire", "close_fire_async", "take_fire", "take_fire_async"]

_log = structlog.get_logger("callboard.worker")


def _take(
    services: Services,
    attempt: Attempt,
    store: AsyncStore | None = None,
    observe: Callable[[str, str, int], Any] | None = None,
) -> Steps[bool]:
    """Whether this run may start: True for a run of no schedule. Raises `DatabaseUnavailable`.

    For an async handler, ``store`` is its event loop's, and so is ``observe``, `Runs.observe`.
    """
    acceptance = attempt.call.acceptance
    if acceptance is None or attempt.claim.waited:  # it has taken it before it waited
        return True
    clock, fires = _clock_and_fires(services, store)
    now = yield clock()
    fire = yield fires.take(attempt.run_id, acceptance, attempt.claim.attempt, now)
    if fire is None:
        _log.warning("a fire that had its run already", run_id=attempt.run_id)
        return False
    if fire.started is None and not fire.manual and fire.action is None:
        late = (now - fire.planned) // timedelta(milliseconds=1)
        with contextlib.suppress(BrokerUnavailable):  # the run matters more
            yield (observe or services.runs.observe)("late", fire.schedule, max(late, 0))
    return True


def _close(
    services: Services, attempt: Attempt, outcome: Outcome, store: AsyncStore | None = None
) -> Steps[None]:
    """Note the end of a scheduled run; while the database is away, a beat does it later."""
    acceptance = attempt.call.acceptance
    if acceptance is None:
        return
    clock, fires = _clock_and_fires(services, store)
    try:
        yield fires.close(
            attempt.run_id,
            outcome.status,
            completed=(yield clock()),
            attempts=attempt.claim.attempt,
            acceptance=acceptance,
        )
    except DatabaseUnavailable as error:
        _log.warning("the end of a fire is not noted yet", run_id=attempt.run_id, why=str(error))


def _clock_and_fires(
    services: Services, store: AsyncStore | None
) -> tuple[DatabaseClock, Fires] | tuple[AsyncDatabaseClock, AsyncFires]:
    if store is not None:
        return AsyncDatabaseClock(store.database), AsyncFires(store.database)
    database = services.store.database
    return DatabaseClock(database), Fires(database)


take_fire, take_fire_async = plain(_take), awaited(_take)
close_fire, close_fire_async = plain(_close), awaited(_close)
