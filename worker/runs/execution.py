"""One run, from its message to its end, as it happens in a child of the worker."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from traceback import format_exception
from typing import Any, TypeVar

import structlog

from callboard.errors import BrokerUnavailable, SealError, ServiceUnavailable
from callboard.runs.outcome import Outcome
from callboard.runs.seal import Call
from callboard.runs.store import Claim, Take
from callboard.sdk.action import Action
from callboard.sdk.results import ActionResult, StopHandler

from ..lease.hands import Hands
from ..services import Services
from ..tools.transaction import Transaction, kill_sessions, run_in_transaction
from .attempt import Attempt, Delivered, RunEnded
from .context import build_context
from .fire import close_fire, take_fire

__all__ = [
    "execute",
    "install_stop_signal",
    "outcome_of",
]

DATABASE_RETRY_SECONDS = 1.0
MARGIN_SECONDS = 1.0  # what a handler's calls leave of its timeout, so that it ends by itself
STOP_SIGNAL = signal.SIGUSR2  # billiard keeps SIGUSR1 for itself
KILL_SECONDS = 0.5  # within which the keeper kills the child of a run that it has ended

_T = TypeVar("_T")
Queues = Callable[[], Sequence[str]]
_log = structlog.get_logger("callboard.worker")


class HandlerStopped(BaseException):
    """Raised inside a handler whose run was canceled."""


class _Again(Exception):
    """The run is back in its queue."""


def execute(services: Services, action: Action, run_id: str, queues: Queues) -> Delivered:
    """Claim the run, run its handler, end the run; ask for the next message with that.

    ``queues``: says, when the run ends, of which queues; of none if it is empty. A message for a
    run that is held, ended or unknown changes nothing. Nothing that a handler raises leaves this
    function.
    """
    number = services.hands.take(run_id, action.name)
    try:
        return _claimed(services, action, run_id, services.holder(os.getpid(), number), queues)
    except _Again as again:
        return Delivered("retried", str(again))
    finally:
        services.hands.let_go()


def _claimed(
    services: Services, action: Action, run_id: str, holder: str, queues: Queues
) -> Delivered:
    claim = services.runs.claim(run_id, action.name, holder, services.settings.recovery)
    if not claim.is_held:
        if claim.state == "gone":
            services.refuse("message without a run", action.task, run_id)
        if claim.state == "newer":
            services.leave(f"run {run_id}")
        return Delivered(None)
    attempt, outcome = _ended(services, action, run_id, holder, claim)
    done, take = _finish(services, run_id, action, holder, outcome, queues)
    if done and attempt:
        _close_fire(services, attempt, outcome)
    if outcome.code != 200:
        return Delivered("failed", outcome.error, take)
    return Delivered("succeeded", None, take)


def _ended(
    services: Services, action: Action, run_id: str, holder: str, claim: Claim
) -> tuple[Attempt | None, Outcome]:
    """How the claimed run ends, and the attempt if there was one.

    Whatever is raised ends it: what cannot be read now cannot be read by the next worker either.
    """
    attempt = None
    try:
        if claim.session:
            with contextlib.suppress(ServiceUnavailable):  # then the handler will meet it too
                kill_sessions(services.store.database(), [claim.session])
        if claim.state == "lost":
            return None, Outcome.lost(run_id)
        if claim.state == "canceled":
            return None, Outcome.canceled(run_id)
        attempt = _opened(services, action, run_id, holder, claim)
        if attempt.call.expires < time.time():
            return attempt, Outcome.failed("Expired", run_id)
        outcome_of = services.tracing.run(_handled) if services.tracing else _handled
        return attempt, outcome_of(services, attempt)
    except _Again:
        raise
    except SealError:
        services.refuse("record without a valid seal", action.task, run_id)
    except BaseException as error:  # noqa: BLE001 - no exception may reach Celery
        _log.error("run not readable", run_id=run_id, action=action.name, exc_info=_safe(error))
    return attempt, Outcome.failed("Action failed", run_id)


def _opened(services: Services, action: Action, run_id: str, holder: str, claim: Claim) -> Attempt:
    """The attempt that the claim is for; raises `SealError`, or whatever the JSON makes raise."""
    call = Call.from_json(services.sealer.open("call", run_id, action.name, claim.seal))
    deadline = time.monotonic() + action.timeout - min(MARGIN_SECONDS, action.timeout / 10)
    return Attempt(run_id, action, holder, claim, call, deadline)


def _close_fire(services: Services, attempt: Attempt, outcome: Outcome) -> None:
    try:
        close_fire(services, attempt, outcome)
    except Exception as error:  # noqa: BLE001 - the run has ended, and a beat closes it later
        _log.error("fire not closed", run_id=attempt.run_id, exc_info=error)


def _handled(services: Services, attempt: Attempt) -> Outcome:
    """Run the handler and turn whatever happens into an outcome (or a retry)."""
    run_id, action = attempt.run_id, attempt.action
    try:
        return services.isolation.run(_stoppably, services, attempt)
    except HandlerStopped:
        return Outcome.canceled(run_id)
    except RunEnded as end:
        return _refused(services, attempt, end.outcome)
    except ServiceUnavailable as error:
        return _unavailable(services, attempt, error)
    except BaseException as error:  # noqa: BLE001 - no exception may reach Celery
        _log.error(
            "handler raised", run_id=run_id, action=action.name, attempt=attempt.claim.attempt,
            exc_info=_safe(error),
        )  # fmt: skip
        retry = action.retry
        if retry and isinstance(error, retry.on) and attempt.claim.attempt < retry.max_attempts:
            _retry(services, attempt, retry.delay(attempt.claim.attempt))
        outcome = Outcome.failed("Action failed", run_id)
        return _explained(services, outcome, error)


def _refused(services: Services, attempt: Attempt, outcome: Outcome) -> Outcome:
    """The end of a run whose handler returned what cannot be its result."""
    reason = str(outcome.reason)
    _log.error("result refused", run_id=attempt.run_id, action=attempt.action.name, reason=reason)
    return _explained(services, outcome, reason)


def _explained(services: Services, outcome: Outcome, why: str | BaseException) -> Outcome:
    """The failure; in development with the reason that only the log has in production."""
    if services.settings.env != "development":
        return outcome
    return outcome.explained(why if isinstance(why, str) else "".join(format_exception(why)))


def _stoppably(services: Services, attempt: Attempt) -> Outcome:
    with _stoppable():
        if not take_fire(services, attempt):
            return Outcome.canceled(attempt.run_id)
        return outcome_of(services, attempt)


def outcome_of(services: Services, attempt: Attempt) -> Outcome:
    """What comes of the handler; in a transaction if the action wants one.

    Raises what the handler raises, `RunEnded` for what cannot be a result, and
    `ServiceUnavailable`.
    """
    outcome: Outcome
    on_session = _note_session(services, attempt)
    action = attempt.action
    run = services.tracing.handler(action) if services.tracing else action.run

    def handler(transaction: Transaction | None = None) -> ActionResult[Any]:
        nonlocal outcome
        context, tools = build_context(services, attempt, transaction, on_session)
        result: Any
        try:
            result = run(context)
        except StopHandler as stop:
            result = stop.result
        except Exception:
            if tools.lost:
                raise tools.lost from None
            raise
        finally:
            tools.end()
        if tools.lost:
            raise tools.lost
        outcome = Outcome.of(result, attempt.run_id)
        if outcome.code != 200:  # known before a transaction commits
            raise RunEnded(outcome)
        return result  # type: ignore[no-any-return]  # Outcome.of looked at it

    if not attempt.action.transaction:
        handler()
        return outcome
    result = run_in_transaction(
        database=services.store.database,
        run_id=attempt.run_id,
        action=attempt.action.name,
        deadline=attempt.deadline,
        before_start=on_session,
        body=handler,
    )
    return Outcome.of(result, attempt.run_id)  # perhaps that of an earlier try


def _note_session(services: Services, attempt: Attempt) -> Callable[[str], None]:
    """Puts the session of a transaction into the run record, for whoever takes over."""
    return lambda session: _require(
        services.runs.note_session(attempt.run_id, attempt.holder, session)
    )


def _require(held: bool) -> None:
    if not held:
        raise HandlerStopped


def _unavailable(services: Services, attempt: Attempt, error: ServiceUnavailable) -> Outcome:
    """The database or the broker is away: again while the run has time, then 503."""
    may_rerun = attempt.action.on_worker_lost == "rerun"
    if may_rerun and attempt.claim.age + DATABASE_RETRY_SECONDS < attempt.action.timeout:
        _retry(services, attempt, DATABASE_RETRY_SECONDS)
    _log.error("service away", run_id=attempt.run_id, error=type(error).__name__)
    return Outcome.unavailable(str(error), attempt.run_id)


def _retry(services: Services, attempt: Attempt, delay: float) -> None:
    """Put the run back into its queue; returns only if it is no longer ours."""
    if _insist(lambda: services.runs.requeue(attempt.run_id, attempt.holder, delay)):
        raise _Again(f"again in {delay:.1f} s") from None


def _finish(
    services: Services,
    run_id: str,
    action: Action,
    holder: str,
    outcome: Outcome,
    queues: Queues,
) -> tuple[bool, Take | None]:
    """End the run, if it is still ours: whether it was, and what takes the next message."""
    ending, asked = (run_id, action.name, holder, outcome), queues()
    done, take = _insist(
        lambda: (
            services.runs.finish_and_ask(*ending, asked)
            if asked
            else (services.runs.finish(*ending), None)
        )
    )
    if not done:
        _log.warning("finish discarded: the run is no longer ours", run_id=run_id)
        time.sleep(KILL_SECONDS)  # with this run in hand: a kill must not hit the next
    return done, take


def _insist(write: Callable[[], _T]) -> _T:
    """Keep trying while the broker is away: an outcome that is not stored did not happen.

    The claim lapses meanwhile; then the record refuses the write, whenever it arrives.
    """
    delay = 0.05
    while True:
        try:
            return write()
        except BrokerUnavailable:
            time.sleep(delay)
            delay = min(delay * 2, 2.0)


def _safe(error: BaseException) -> Any:
    """What structlog may format: an exception whose text cannot be had is named by its type."""
    try:
        str(error)
    except BaseException:  # noqa: BLE001 - a hostile __str__
        return RuntimeError(f"{type(error).__name__} without a text")
    return error


class _stoppable:  # noqa: N801 - reads as a context manager
    """While inside, the stop signal raises `HandlerStopped`."""

    active = False

    def __enter__(self) -> None:
        _stoppable.active = True

    def __exit__(self, *_: object) -> None:
        _stoppable.active = False


def install_stop_signal(hands: Hands) -> None:
    """In a child: let the keeper interrupt the handler of the run that it means."""

    def stop(*_: object) -> None:
        if _stoppable.active and hands.stop_is_asked():
            _stoppable.active = False
            raise HandlerStopped

    signal.signal(STOP_SIGNAL, stop)
