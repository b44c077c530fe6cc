"""The reply channel: how waiting requests learn that their runs ended.

Each API process has one channel and one connection (`api.call.multiplexer`). A worker that ends a
run publishes the sealed result on the channel; the multiplexer's reader hands it to the request
that waits. A waiting request costs one small object: no thread, no connection, no subscription.
It waits once for both, the broker's word that the run is queued and the run's result.

Publishing is the fast path only, the run record is the truth: after each reconnect, and every
few seconds, the reader looks up the records of all that still wait.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import uuid
from collections.abc import Container, Sequence
from typing import Any, Self

import redis
from werkzeug.exceptions import HTTPException

from callboard.connections.redis import TIMEOUT
from callboard.errors import SealError
from callboard.runs.outcome import Outcome
from callboard.runs.scripts import scripts
from callboard.runs.store import Accepted, Runs

from .multiplexer import Multiplexer, Order

__all__ = ["HungUp", "Replies", "Waiter", "Watcher"]

RUN_ID_LENGTH = 36


class HungUp(HTTPException):
    """The client is gone; the status is for the log and the metrics (nginx counts them so)."""

    code = 499
    description = "Client closed request"

    def __init__(self, run_id: str) -> None:
        super().__init__()
        self._run_id = run_id

    def get_headers(self, *args: Any, **kwargs: Any) -> list[tuple[str, str]]:
        """With the run, which goes on: the log names it."""
        return [*super().get_headers(*args, **kwargs), ("Run-Id", self._run_id)]


class Waiter:
    """One request that waits for one run."""

    __slots__ = (
        *("_accepted", "_asked", "_run_id", "_waiting", "_wake"),
        *("answer", "answer_by", "gone", "order", "sealed", "thread"),
    )

    def __init__(self, run_id: str, waiting: dict[str, list[Waiter]]) -> None:
        self._run_id = run_id
        self._waiting = waiting  # all of this process, by run
        self.thread = threading.get_ident()
        self.gone = False  # the client has hung up
        self.sealed: bytes | None = None  # the result, once the run has ended
        self.order: Order | None = None  # where this request has asked for the run
        self.answer_by = 0.0  # time.monotonic seconds: until when the broker must have answered
        self.answer: Any = None  # what it answered
        self._accepted = [b"accepted", run_id.encode()]  # what it answers nearly always
        self._asked = False
        self._wake = threading.Lock()
        self._wake.acquire()

    def __enter__(self) -> Self:
        self._waiting.setdefault(self._run_id, []).append(self)
        return self

    def __exit__(self, *_: object) -> None:
        waiters = self._waiting[self._run_id]
        waiters.remove(self)
        if not waiters:
            self._waiting.pop(self._run_id, None)

    def wait(self, until: float) -> bool:
        """Until something happens; False if nothing did before ``until`` (time.monotonic)."""
        return self._wake.acquire(timeout=max(until - time.monotonic(), 0.0))

    def wait_for_answer(self) -> bool:
        """Until the broker has answered; False if it has not in time."""
        self._asked = True
        while self.answer is None:
            if not self.wait(self.answer_by):
                return self.answer is not None
        return True

    @property
    def is_unanswered(self) -> bool:
        """Whether the broker has not yet said what became of the order."""
        return self.order is not None and self.answer is None

    @property
    def is_turned_away(self) -> bool:
        """Whether the broker said that this is not to be a run of its own."""
        return self.answer is not None and self.answer != self._accepted

    def tell(self, sealed: bytes | None) -> None:
        """Called by the reader: the run changed or, with a result, ended."""
        if sealed:
            self.sealed = sealed
        with contextlib.suppress(RuntimeError):  # told before, and not yet awake
            self._wake.release()

    def tell_answer(self, answer: Any) -> None:
        """Called by the reader: the broker has answered. Who waits for the result sleeps on."""
        self.answer = answer
        if self._asked or self.is_turned_away:
            self.tell(None)


class Watcher(Waiter):
    """A `Waiter` that knows since when there is something to look at."""

    __slots__ = ("told_at",)

    def __init__(self, run_id: str, waiting: dict[str, list[Waiter]]) -> None:
        super().__init__(run_id, waiting)
        self.told_at = time.monotonic()

    def tell(self, sealed: bytes | None) -> None:
        """Called by the reader: the run changed or ended."""
        self.told_at = time.monotonic()
        super().tell(sealed)


class Replies:
    """The waiting requests of this process."""

    def __init__(self, client: redis.Redis, runs: Runs) -> None:
        self._redis = client
        self._runs = runs
        self._waiting: dict[str, list[Waiter]] = {}
        self._lock = threading.Lock()
        self._multiplexer: Multiplexer | None = None
        self.leaving = False  # nobody waits any more: the process is about to stop
        self.channel = ""

    def __len__(self) -> int:
        return sum(len(waiters) for waiters in self._waiting.values())

    def expect(self, run_id: str) -> Waiter:
        """A `Waiter` for this run, registered inside its ``with`` block: before the run can end."""
        if self._multiplexer is None:
            self._start()
        return Waiter(run_id, self._waiting)

    def watch(self, run_id: str) -> Watcher:
        """A `Watcher` of this run, registered inside its ``with`` block."""
        if self._multiplexer is None:
            self._start()
        return Watcher(run_id, self._waiting)

    def accept(self, waiter: Waiter, acceptance: tuple[Sequence[str], Sequence[Any]]) -> None:
        """Have the broker accept the run (`Runs.acceptance`), without waiting for its answer."""
        waiter.answer_by = time.monotonic() + TIMEOUT
        command = self._runs.command("accept", *acceptance)
        waiter.order = self._multiplexer.post(command, waiter.tell_answer)  # type: ignore[union-attr]  # is there since `expect`

    def accepted(self, waiter: Waiter) -> Accepted:
        """What the broker answered; waits for it.

        Raises what `Runs.accept` raises.
        """
        if not waiter.wait_for_answer():
            self._give_up(waiter)
        return self._runs.accepted(waiter.answer)

    def result(self, run_id: str, waiter: Waiter, deadline: float) -> bytes | None:
        """The sealed result, as soon as the run has ended; None at ``deadline``, at `let_go`, or
        where the broker has turned the run away (`accepted` tells).

        ``deadline`` is in `time.monotonic` seconds. A change that brings no result may be the
        end of a run whose reply went to another process: the record tells. Raises `HungUp`.
        """
        while waiter.sealed is None and not self.leaving and not waiter.is_turned_away:
            if waiter.is_unanswered and waiter.answer_by < deadline:
                if not waiter.wait(waiter.answer_by) and waiter.is_unanswered:
                    self._give_up(waiter)
            elif not waiter.wait(deadline):
                break
            elif waiter.gone:
                raise HungUp(run_id)
            elif waiter.sealed is None and not waiter.is_turned_away:
                waiter.sealed = self._runs.results([run_id]).get(run_id)
        return waiter.sealed

    def outcome(self, run_id: str, action: str, waiter: Waiter, deadline: float) -> Outcome | None:
        """`result`, opened. What was published and does not open is nobody's: the record tells.

        Raises `SealError` for a result that stands in the record and does not open.
        """
        while sealed := self.result(run_id, waiter, deadline):
            try:
                return self._runs.open_result(run_id, action, sealed)
            except SealError:
                waiter.sealed = self._runs.results([run_id]).get(run_id)
                if waiter.sealed == sealed:
                    raise
        return None

    def let_go(self) -> None:
        """End every wait, also those that are still to begin: the runs go on without them."""
        self.leaving = True
        for waiters in list(self._waiting.values()):
            for waiter in list(waiters):
                waiter.tell(None)

    def hung_up(self, threads: Container[int]) -> None:
        """End the waits of these threads: their clients are gone. The runs go on."""
        for waiters in list(self._waiting.values()):
            for waiter in list(waiters):
                if waiter.thread in threads:
                    waiter.gone = True
                    waiter.tell(None)

    def close(self) -> None:
        """End the multiplexer; whoever still waits is told nothing more."""
        if self._multiplexer:
            self._multiplexer.close()

    def _start(self) -> None:
        """Start the multiplexer on first use: a forked server process has one of its own."""
        with self._lock:
            if self._multiplexer is None:
                self.channel = self._runs.keys.reply(f"{os.getpid()}-{uuid.uuid4().hex}")
                self._multiplexer = Multiplexer(
                    self._redis,
                    self.channel,
                    scripts=[scripts(self._runs.keys)["accept"]],
                    on_message=self._hand_out,
                    on_turn=self._catch_up,
                    on_open=self._look_again,
                )

    def _give_up(self, waiter: Waiter) -> None:
        """The broker has not answered in time: that is its answer."""
        self._multiplexer.give_up(waiter.order)  # type: ignore[union-attr,arg-type]  # since `accept`
        waiter.answer = redis.TimeoutError("no answer in time")

    # Called by the multiplexer's reader

    def _hand_out(self, message: bytes) -> None:
        self._tell(message[:RUN_ID_LENGTH].decode(errors="replace"), message[RUN_ID_LENGTH:])

    def _look_again(self) -> None:
        """Nobody was told of what changed before."""
        for waiters in list(self._waiting.values()):
            for waiter in list(waiters):
                if isinstance(waiter, Watcher):
                    waiter.tell(None)

    def _catch_up(self) -> None:
        """Look up what a lost publish would have told."""
        waiting = list(self._waiting)
        for start in range(0, len(waiting), 500):
            for run_id, sealed in self._runs.results(waiting[start : start + 500]).items():
                self._tell(run_id, sealed)

    def _tell(self, run_id: str, sealed: bytes) -> None:
        for waiter in self._waiting.get(run_id, ()):
            waiter.tell(sealed)
