"""A submission: one call on its way to a worker, and the request that waits for its end.

It waits once for both, the broker's word that the run is queued and the run's result.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Self

import redis

from callboard.connections.redis import TIMEOUT
from callboard.errors import SealError
from callboard.runs.outcome import Outcome
from callboard.runs.store import Accepted, Runs

from .multiplexer import Multiplexer, PendingCommand
from .waiting import HungUp, Waiter, Waiting

__all__ = ["Submission"]


class Submission(Waiter):
    """A run that the broker is asked to accept as the ``with`` block begins."""

    __slots__ = (
        *("_action", "_answer", "_answer_by", "_command", "_is_awaited", "_is_rejected"),
        *("_multiplexer", "_outcome", "_pending", "_runs"),
    )

    def __init__(
        self,
        run_id: str,
        action: str,
        command: Sequence[Any],
        waiting: Waiting,
        runs: Runs,
        multiplexer: Multiplexer,
    ) -> None:
        super().__init__(run_id, waiting)
        self._action = action
        self._command = command  # of the script `accept`
        self._runs = runs
        self._multiplexer = multiplexer
        self._pending: PendingCommand | None = None
        self._answer: Any = None  # what the broker answered
        self._answer_by = time.monotonic() + TIMEOUT
        self._is_awaited = False  # whether the request waits for the answer
        self._is_rejected = False  # the answer says that this is not to be a run of its own
        self._outcome: Outcome | None = None

    def __enter__(self) -> Self:
        super().__enter__()  # before the run can end
        try:
            self._pending = self._multiplexer.post(self._command, self._on_answer)
        except BaseException:
            self.__exit__()
            raise
        return self

    def result(self, deadline: float) -> Outcome | None:
        """How the run ended, as soon as it has; None at ``deadline`` (time.monotonic seconds), as
        the process stops, or where the broker has rejected the run (`accepted` says why).

        What was published and does not open is nobody's: the record tells. Raises `HungUp`,
        `BrokerUnavailable`, and `SealError` for a result in the record that does not open.
        """
        while sealed := self._wait_for_result(deadline):
            try:
                self._outcome = self._runs.open_result(self.run_id, self._action, sealed)
                break
            except SealError:
                self.sealed = self._recorded()
                if self.sealed == sealed:
                    raise
        return self._outcome

    def accepted(self) -> Accepted:
        """What the broker answered; waits for it, unless the run has ended.

        Raises what `Runs.accept` raises.
        """
        if self._outcome:
            return Accepted(self.run_id, joined=False)
        self._is_awaited = True
        while self._answer is None:
            if not self.wait(self._answer_by) and self._answer is None:
                self._give_up()
        return self._runs.accepted(self._answer)

    def _wait_for_result(self, deadline: float) -> bytes | None:
        """The sealed result. A change that brings none may be the end of a run whose reply went
        to another process: the record tells."""
        while self.sealed is None and not self._waiting.is_over and not self._is_rejected:
            if self._answer is None and self._answer_by < deadline:
                if not self.wait(self._answer_by) and self._answer is None:
                    self._give_up()
            elif not self.wait(deadline):
                break
            elif self.gone:
                raise HungUp(self.run_id)
            elif self.sealed is None and not self._is_rejected:
                self.sealed = self._recorded()
        return self.sealed

    def _recorded(self) -> bytes | None:
        return self._runs.results([self.run_id]).get(self.run_id)

    def _give_up(self) -> None:
        """The broker has not answered in time: that is its answer."""
        if self._pending:
            self._multiplexer.give_up(self._pending)
        self._answer, self._is_rejected = redis.TimeoutError("no answer in time"), True

    def _on_answer(self, answer: Any) -> None:
        """Called by the reader. Who waits for the result of an accepted run sleeps on."""
        self._is_rejected = answer != [b"accepted", self.run_id.encode()]
        self._answer = answer
        if self._is_awaited or self._is_rejected:
            self.notify(None)
