"""One run of a plain handler, as a child of the worker executes it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any

from callboard.errors import ServiceUnavailable
from callboard.runs.outcome import Outcome
from callboard.runs.store import Take
from callboard.sans_io import run
from callboard.sdk.action import Action
from callboard.sdk.results import ActionResult, StopHandler

from ..lease.hands import Hands
from ..services import Services
from ..tools.transaction import Transaction, kill_sessions, run_in_transaction
from .attempt import Attempt, Delivered, RunEnded
from .context import build_context
from .fire import close_fire, take_fire
from .lifecycle import HandlerStopped, live

__all__ = [
    "execute",
    "install_stop_signal",
    "outcome_of",
]

STOP_SIGNAL = signal.SIGUSR2  # billiard keeps SIGUSR1 for itself
KILL_SECONDS = 0.5  # within which the keeper kills the child of a run that it has ended

Queues = Callable[[], Sequence[str]]


class _Plain:
    """`Means` of a child: it does one thing at a time.

    ``queues``: says, when the run ends, from which the next message is to be asked for with that;
    from none if it is empty.
    """

    def __init__(self, services: Services, queues: Queues) -> None:
        self._services = services
        self._queues = queues
        self.claim = services.runs.claim
        self.requeue = services.runs.requeue

    def finish(
        self, run_id: str, action: str, holder: str, outcome: Outcome
    ) -> tuple[bool, Take | None]:
        runs, asked = self._services.runs, self._queues()
        if asked:
            return runs.finish_and_ask(run_id, action, holder, outcome, asked)
        return runs.finish(run_id, action, holder, outcome), None

    def kill_session(self, session: str) -> None:
        with contextlib.suppress(ServiceUnavailable):  # then the handler will meet it too
            kill_sessions(self._services.store.database(), [session])

    def handle(self, attempt: Attempt) -> Outcome:
        return self._services.isolation.run(_stoppably, self._services, attempt)

    def close_fire(self, attempt: Attempt, outcome: Outcome) -> None:
        close_fire(self._services, attempt, outcome)

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)

    def was_taken(self) -> None:
        """With this run in hand: a kill must not hit the next."""
        time.sleep(KILL_SECONDS)


def execute(services: Services, action: Action, run_id: str, queues: Queues) -> Delivered:
    """Run the run (`worker.runs.lifecycle`) in this process; ask for the next message with its end.

    ``queues``: says, when the run ends, of which queues; of none if it is empty.
    """
    number = services.hands.take(run_id, action.name)
    holder = services.holder(os.getpid(), number)
    try:
        return run(live(services, _Plain(services, queues), action, run_id, holder))
    finally:
        services.hands.let_go()


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
    handle = services.tracing.handler(action) if services.tracing else action.run

    def handler(transaction: Transaction | None = None) -> ActionResult[Any]:
        nonlocal outcome
        context, tools = build_context(services, attempt, transaction, on_session)
        result: Any
        try:
            result = handle(context)
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
