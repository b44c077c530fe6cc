"""The reply channel: how waiting requests learn that their runs ended.

Each API process has one channel and one reader. A worker that ends a run publishes the sealed
result there; the reader hands it to the request that waits. A waiting request costs one small
object: no thread, no connection, no subscription of its own.

Publishing is the fast path only, the run record is the truth: after each reconnect, and every
few seconds, the reader looks up the records of all that still wait.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import redis

from callboard.errors import BrokerUnavailable
from callboard.runs import Runs

__all__ = ["Replies", "Waiter"]

RUN_ID_LENGTH = 36
CATCH_UP_SECONDS = 5.0
SILENCE_SECONDS = 15.0  # a connection that answers no PING for so long is dead
RECONNECT_SECONDS = 0.2


class Waiter:
    """One request that waits for one run."""

    __slots__ = ("_wake", "sealed")

    def __init__(self) -> None:
        self.sealed: bytes | None = None  # the result, once the run has ended
        self._wake = threading.Lock()
        self._wake.acquire()

    def wait(self, seconds: float) -> bool:
        """Until the run changes or ends; False if nothing happened within ``seconds``."""
        return self._wake.acquire(timeout=max(seconds, 0.0))

    def tell(self, sealed: bytes | None) -> None:
        """Called by the reader: the run changed or, with a result, ended."""
        if sealed:
            self.sealed = sealed
        with contextlib.suppress(RuntimeError):  # told before, and not yet awake
            self._wake.release()


class Replies:
    """The waiting requests of this process."""

    def __init__(self, client: redis.Redis, runs: Runs) -> None:
        self._redis = client
        self._runs = runs
        self._waiting: dict[str, list[Waiter]] = {}
        self._lock = threading.Lock()
        self._reader: threading.Thread | None = None
        self._subscribed = threading.Event()
        self._closed = threading.Event()
        self._line: Any = None  # the subscribed connection
        self.leaving = False  # nobody waits any more: the process is about to stop
        self.channel = f"callboard:reply:{uuid.uuid4().hex}"

    def __len__(self) -> int:
        return sum(len(waiters) for waiters in self._waiting.values())

    @contextlib.contextmanager
    def expect(self, run_id: str) -> Iterator[Waiter]:
        """A `Waiter` for this run, registered before the run can end."""
        self._start()
        waiter = Waiter()
        self._waiting.setdefault(run_id, []).append(waiter)
        try:
            yield waiter
        finally:
            waiters = self._waiting[run_id]
            waiters.remove(waiter)
            if not waiters:
                self._waiting.pop(run_id, None)

    def result(self, run_id: str, waiter: Waiter, deadline: float) -> bytes | None:
        """The sealed result, as soon as the run has ended; None at ``deadline``, or at `let_go`.

        ``deadline`` is in `time.monotonic` seconds. A change that brings no result may be the
        end of a run whose reply went to another process: the record tells.
        """
        while waiter.sealed is None and not self.leaving:
            if not waiter.wait(deadline - time.monotonic()):
                break
            if waiter.sealed is None:
                waiter.sealed = self._runs.results([run_id]).get(run_id)
        return waiter.sealed

    def let_go(self) -> None:
        """End every wait, also those that are still to begin: the runs go on without them."""
        self.leaving = True
        for waiters in list(self._waiting.values()):
            for waiter in list(waiters):
                waiter.tell(None)

    def _start(self) -> None:
        """Start the reader on first use, so that a forked server process has one of its own."""
        if self._reader is None:
            with self._lock:
                if self._reader is None:
                    self.channel = f"callboard:reply:{os.getpid()}-{uuid.uuid4().hex}"
                    self._reader = threading.Thread(target=self._read, name="replies", daemon=True)
                    self._reader.start()
        self._subscribed.wait(1.0)

    def close(self) -> None:
        """End the reader; whoever still waits is told nothing more."""
        self._closed.set()
        if self._line is not None:
            self._line.disconnect()  # wakes the reader
        if self._reader is not None:
            self._reader.join()

    def _read(self) -> None:
        while not self._closed.is_set():
            line = self._line = self._redis.connection_pool.make_connection()
            try:
                line.connect()
                line.send_command("SUBSCRIBE", self.channel)
                self._listen(line)
            except (redis.RedisError, OSError, ValueError, BrokerUnavailable):
                self._subscribed.clear()
                self._closed.wait(RECONNECT_SECONDS)
            finally:
                line.disconnect()

    def _listen(self, line: Any) -> None:
        """Hand out what is published, as long as the server answers now and then."""
        catch_up_at, silent_at = 0.0, time.monotonic() + SILENCE_SECONDS
        while not self._closed.is_set():
            now = time.monotonic()
            if now >= catch_up_at and self._subscribed.is_set():
                line.send_command("PING")
                self._catch_up()
                catch_up_at = now + CATCH_UP_SECONDS
            try:
                kind, *told = line.read_response(disconnect_on_error=False, push_request=True)
            except redis.TimeoutError:
                if now > silent_at:
                    raise
                continue
            silent_at = now + SILENCE_SECONDS
            if kind == b"message":
                self._tell(told[1][:RUN_ID_LENGTH].decode(), told[1][RUN_ID_LENGTH:])
            elif kind == b"subscribe":
                self._subscribed.set()

    def _catch_up(self) -> None:
        """Look up what a lost publish would have told."""
        waiting = list(self._waiting)
        for start in range(0, len(waiting), 500):
            for run_id, sealed in self._runs.results(waiting[start : start + 500]).items():
                self._tell(run_id, sealed)

    def _tell(self, run_id: str, sealed: bytes) -> None:
        for waiter in self._waiting.get(run_id, ()):
            waiter.tell(sealed)
