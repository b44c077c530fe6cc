"""One run, from its claim to its end, whatever kind its handler is of.

The body is written once (`callboard.sans_io`); what differs is `Means`: a child of the worker runs
plain handlers one after the other (`worker.runs.execution`), a loop process many async ones at once
(`worker.loop.execution`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from callboard.errors import BrokerUnavailable, SealError, ServiceUnavailable
from callboard.log.run_log import RunLog
from callboard.runs.commands import Claim, Wait
from callboard.runs.outcome import Outcome
from callboard.runs.report import Sealed
from callboard.runs.seal import Call
from callboard.runs.store import ReceiveMessage
from callboard.sans_io import Steps
from callboard.sdk.action import Action

from .attempt import Attempt, Delivered, Parked, RunEnded
from .reports import report_of, reported, traceback_of

if TYPE_CHECKING:
    from ..services import Services

__all__ = ["HOOK_SECONDS", "HandedBack", "HandlerStopped", "Means", "TimedOut", "live"]

DATABASE_RETRY_SECONDS = 1.0
HOOK_SECONDS = 4.0  # that hooks have behind a handler that was out of time
MARGIN_SECONDS = 1.0  # what a handler's calls leave of its timeout, so that it ends by itself

_log = structlog.get_logger("callboard.worker")


class HandlerStopped(BaseException):
    """Raised inside a handler whose run was canceled."""


class TimedOut(BaseException):
    """The handler was stopped at the end of its time."""


class HandedBack(BaseException):
    """The handler was stopped because its process ends; the run is for another one."""


class _Again(Exception):
    """The run is back in its queue, or waits."""


class Means(Protocol):
    """What a run is done with: each answers what `callboard.sans_io` takes as a step."""

    def claim(self, run_id: str, action: str, holder: str, lease: float) -> Any:
        """A `Claim`."""

    def requeue(
        self, run_id: str, holder: str, delay: float = 0.0, report: Sealed | None = None
    ) -> Any:
        """Whether it was still the holder's."""

    def park(
        self,
        run_id: str,
        action: str,
        holder: str,
        call: Call,
        wait: Wait,
        spent: float,
        report: Sealed | None,
    ) -> Any:
        """Whether it was still the holder's."""

    def note_spent(self, seconds: float) -> None:
        """That much of the attempt's time was over before."""

    def finish(self, run_id: str, action: str, holder: str, outcome: Outcome) -> Any:
        """Whether it was still the holder's, and what takes the next message, if that is asked
        for."""

    def kill_session(self, session: str) -> Any:
        """End what a holder before has left open in the database, if it answers."""

    def handle(self, attempt: Attempt) -> Any:
        """The `Outcome` of the handler; raises what `outcome_of` raises, and why it was stopped."""

    def close_fire(self, attempt: Attempt, outcome: Outcome) -> Any:
        """Note the end of a scheduled run."""

    def pause(self, seconds: float) -> Any:
        """Wait."""

    def was_taken(self) -> Any:
        """The run was another's when it was to be ended."""


def live(
    services: Services, means: Means, action: Action, run_id: str, holder: str
) -> Steps[Delivered]:
    """Claim the run, run its handler, end the run.

    A message for a run that is held, ended or unknown changes nothing. Nothing that a handler
    raises leaves this function.
    """
    claim = yield means.claim(run_id, action.name, holder, services.settings.recovery)
    if not claim.is_held:
        if claim.state == "gone":
            services.refuse("message without a run", action.task, run_id)
        if claim.state == "newer":
            services.leave(f"run {run_id}")
        return Delivered(None)
    try:
        attempt, outcome = yield from _ended(services, means, action, run_id, holder, claim)
    except _Again as again:
        return Delivered("retried", str(again))
    done, take = yield from _finish(means, run_id, action, holder, outcome)
    if done and attempt:
        yield from _close_fire(means, attempt, outcome)
    if outcome.http_status != 200:
        return Delivered("failed", outcome.error, take)
    return Delivered("succeeded", None, take)


def _ended(
    services: Services, means: Means, action: Action, run_id: str, holder: str, claim: Claim
) -> Steps[tuple[Attempt | None, Outcome]]:
    """How the claimed run ends, and the attempt if there was one.

    Whatever is raised ends it: what cannot be read now cannot be read by the next worker either.
    """
    attempt = None
    try:
        if claim.session:
            yield means.kill_session(claim.session)
        if claim.state == "lost":
            return None, Outcome.lost(run_id)
        if claim.state == "canceled":
            return None, Outcome.canceled(run_id)
        attempt = _opened(services, action, run_id, holder, claim)
        if claim.spent:
            means.note_spent(claim.spent)
        if attempt.call.expires < time.time():
            return attempt, Outcome.failed("Expired", run_id)
        if services.tracing is None:
            return attempt, (yield from _handled(services, means, attempt))
        with services.tracing.run(attempt) as note:
            outcome = yield from _handled(services, means, attempt)
            note(outcome)
        return attempt, outcome
    except (_Again, GeneratorExit):
        raise
    except SealError:
        services.refuse("record without a valid seal", action.task, run_id)
    except BaseException as error:  # noqa: BLE001 - no exception may reach Celery
        _log.error("run not readable", run_id=run_id, action=action.name, exc_info=_safe(error))
    return attempt, Outcome.failed("Action failed", run_id)


def _opened(services: Services, action: Action, run_id: str, holder: str, claim: Claim) -> Attempt:
    """The attempt that the claim is for; raises `SealError`, or whatever the JSON makes raise."""
    call = Call.from_json(services.sealer.open("call", run_id, action.name, claim.seal))
    deadline = time.monotonic() + action.timeout - _margin(action) - claim.spent
    log = RunLog(services.redactor, call.jwt)
    return Attempt(run_id, action, holder, claim, call, deadline, log)


def _margin(action: Action) -> float:
    return min(MARGIN_SECONDS, action.timeout / 10)


def _spent(attempt: Attempt) -> float:
    """Seconds of the handler's time that are over, also those before it has waited."""
    action = attempt.action
    return action.timeout - _margin(action) - (attempt.deadline - time.monotonic())


def _handled(services: Services, means: Means, attempt: Attempt) -> Steps[Outcome]:
    """Run the handler and turn whatever happens into an outcome (or a retry)."""
    run_id, action = attempt.run_id, attempt.action
    try:
        outcome: Outcome = yield means.handle(attempt)
        return reported(services, attempt, outcome)
    except (HandlerStopped, TimedOut, HandedBack) as stop:
        return (yield from _stopped(services, means, attempt, stop))
    except Parked as parked:
        return (yield from _park(services, means, attempt, parked))
    except RunEnded as end:
        return _refused(services, attempt, end.outcome)
    except ServiceUnavailable as error:
        return (yield from _unavailable(services, means, attempt, error))
    except GeneratorExit:
        raise
    except BaseException as error:  # noqa: BLE001 - no exception may reach Celery
        _log.error(
            "handler raised", run_id=run_id, action=action.name, attempt=attempt.claim.attempt,
            exc_info=_safe(error),
        )  # fmt: skip
        report = report_of(services, attempt, error)
        if action.retry and attempt.retries(error):
            yield from _retry(means, attempt, action.retry.delay(attempt.claim.attempt), report)
        outcome = Outcome.failed("Action failed", run_id).with_report(report)
        return _explained(services, attempt, outcome, error)


def _refused(services: Services, attempt: Attempt, outcome: Outcome) -> Outcome:
    """The end of a run whose handler returned what cannot be its result."""
    reason = str(outcome.reason)
    _log.error("result refused", run_id=attempt.run_id, action=attempt.action.name, reason=reason)
    return _explained(services, attempt, reported(services, attempt, outcome, reason), reason)


def _explained(
    services: Services, attempt: Attempt, outcome: Outcome, why: str | BaseException
) -> Outcome:
    """The failure; in development with the reason that only the owner sees in production."""
    if services.settings.env != "development":
        return outcome
    text = why if isinstance(why, str) else traceback_of(why)
    return outcome.explained(attempt.log.redact(text))


def _stopped(
    services: Services, means: Means, attempt: Attempt, stop: BaseException
) -> Steps[Outcome]:
    """The end of a run whose handler was stopped. One that is handed back counts as nothing, but a
    handler that must not start twice ends here."""
    run_id, action = attempt.run_id, attempt.action
    if isinstance(stop, HandlerStopped):
        return reported(services, attempt, Outcome.canceled(run_id), stop)
    if isinstance(stop, TimedOut):
        if isinstance(stop.__cause__, ServiceUnavailable):
            return (yield from _unavailable(services, means, attempt, stop.__cause__))
        return reported(services, attempt, Outcome.timed_out(action.timeout, run_id), stop)
    report = report_of(services, attempt)
    if action.on_worker_lost == "rerun":
        yield from _retry(means, attempt, 0.0, report)
    return Outcome.lost(run_id).with_report(report)


def _unavailable(
    services: Services, means: Means, attempt: Attempt, error: ServiceUnavailable
) -> Steps[Outcome]:
    """The database or the broker is away: again while the run has time, then 503."""
    report = report_of(services, attempt, error)
    may_rerun = attempt.action.on_worker_lost == "rerun"
    age = attempt.claim.age + _spent(attempt) - attempt.claim.spent
    if may_rerun and age + DATABASE_RETRY_SECONDS < attempt.action.timeout:
        yield from _retry(means, attempt, DATABASE_RETRY_SECONDS, report)
    _log.error("service away", run_id=attempt.run_id, error=type(error).__name__)
    return Outcome.unavailable(str(error), attempt.run_id).with_report(report)


def _retry(means: Means, attempt: Attempt, delay: float, report: Sealed | None) -> Steps[None]:
    """Put the run back into its queue; returns only if it is no longer ours."""
    again = (attempt.run_id, attempt.holder, delay, report)
    if (yield from _insist(means, lambda: means.requeue(*again))):
        raise _Again(f"again in {delay:.1f} s") from None


def _park(services: Services, means: Means, attempt: Attempt, parked: Parked) -> Steps[Outcome]:
    """Have the run wait, without a process; returns only if it is no longer ours."""
    action, wait = attempt.action, parked.wait
    call, report = attempt.call.due_in(wait.left), report_of(services, attempt)
    waits = (attempt.run_id, action.name, attempt.holder, call, wait, _spent(attempt), report)
    if (yield from _insist(means, lambda: means.park(*waits))):
        raise _Again(str(parked)) from None
    return Outcome.lost(attempt.run_id)


def _finish(
    means: Means, run_id: str, action: Action, holder: str, outcome: Outcome
) -> Steps[tuple[bool, ReceiveMessage | None]]:
    """End the run, if it is still ours: whether it was, and what takes the next message."""
    done, take = yield from _insist(
        means, lambda: means.finish(run_id, action.name, holder, outcome)
    )
    if not done:
        _log.warning("finish discarded: the run is no longer ours", run_id=run_id)
        yield means.was_taken()
    return done, take


def _close_fire(means: Means, attempt: Attempt, outcome: Outcome) -> Steps[None]:
    try:
        yield means.close_fire(attempt, outcome)
    except Exception as error:  # noqa: BLE001 - the run has ended, and a beat closes it later
        _log.error("fire not closed", run_id=attempt.run_id, exc_info=error)


def _insist(means: Means, write: Callable[[], Any]) -> Steps[Any]:
    """Keep trying while the broker is away: an outcome that is not stored did not happen.

    The claim lapses meanwhile; then the record refuses the write, whenever it arrives.
    """
    delay = 0.05
    while True:
        try:
            return (yield write())
        except BrokerUnavailable:
            yield means.pause(delay)
            delay = min(delay * 2, 2.0)


def _safe(error: BaseException) -> Any:
    """What structlog may format: an exception whose text cannot be had is named by its type."""
    try:
        str(error)
    except BaseException:  # noqa: BLE001 - a hostile __str__
        return RuntimeError(f"{type(error).__name__} without a text")
    return error
