"""One run of a plain handler, as a child of the worker executes it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence

from callboard.errors import ServiceUnavailable
from callboard.log.run_log import enter_alone, leave_alone
from callboard.runs.outcome import Outcome
from callboard.runs.store import ReceiveMessage
from callboard.sans_io import run
from callboard.sdk.action import Action

from ..lease.table import ActiveRun
from ..services import Services
from ..tools.transaction import kill_sessions
from .attempt import Attempt, Delivered
from .fire import close_fire, take_fire
from .handling import outcome_of
from .lifecycle import HandlerStopped, TimedOut, live

__all__ = ["execute", "install_stop_signal"]

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
        self.park = services.runs.park
        self.note_spent = services.scoreboard.note_spent

    def finish(
        self, run_id: str, action: str, holder: str, outcome: Outcome
    ) -> tuple[bool, ReceiveMessage | None]:
        runs, queues = self._services.runs, self._queues()
        if queues:
            return runs.finish_and_request(run_id, action, holder, outcome, queues)
        return runs.finish(run_id, action, holder, outcome), None

    def kill_session(self, session: str) -> None:
        with contextlib.suppress(ServiceUnavailable):  # then the handler will meet it too
            kill_sessions(self._services.store.database(), [session])

    def handle(self, attempt: Attempt) -> Outcome:
        try:
            return self._services.isolation.run(_stoppably, self._services, attempt)
        except GeneratorExit as error:  # `live` would take it for its own end
            raise RuntimeError("the application's code raised GeneratorExit") from error
        finally:
            leave_alone()

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
    number = services.scoreboard.take(run_id, action.name)
    holder = services.holder(os.getpid(), number)
    try:
        return run(live(services, _Plain(services, queues), action, run_id, holder))
    finally:
        services.scoreboard.let_go()


def _stoppably(services: Services, attempt: Attempt) -> Outcome:
    enter_alone(attempt.log)
    with _stoppable():
        if not take_fire(services, attempt):
            return Outcome.canceled(attempt.run_id)
        return outcome_of(services, attempt)


class _stoppable:  # noqa: N801 - reads as a context manager
    """While inside, the stop signal raises `HandlerStopped`, or `TimedOut` after the time."""

    active = False

    def __enter__(self) -> None:
        _stoppable.active = True

    def __exit__(self, *_: object) -> None:
        _stoppable.active = False


def install_stop_signal(services: Services) -> None:
    """In a child: let the keeper interrupt the handler of the run that it means."""
    scoreboard, actions = services.scoreboard, services.registry.actions

    def stop(*_: object) -> None:
        if _stoppable.active and scoreboard.stop_is_requested():
            _stoppable.active = False
            mine = scoreboard.mine()
            raise TimedOut if mine and _is_out_of_time(mine) else HandlerStopped

    def _is_out_of_time(mine: ActiveRun) -> bool:
        left = actions[mine.action].timeout - scoreboard.spent(mine)
        return time.monotonic() >= mine.since + left

    signal.signal(STOP_SIGNAL, stop)
