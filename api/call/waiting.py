"""The requests of an API process that wait, and the runs that they wait for.

A waiting request costs one small object: no thread, no connection, no subscription.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Container
from typing import Any, Self

from werkzeug.exceptions import HTTPException

__all__ = ["HungUp", "Waiter", "Waiting", "Watcher"]


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


class Waiting:
    """All who wait in this process, by run."""

    def __init__(self) -> None:
        self.by_run: dict[str, list[Waiter]] = {}
        self.is_over = False  # nobody waits any more: the process is about to stop

    def __len__(self) -> int:
        return sum(len(waiters) for waiters in self.by_run.values())

    def all(self) -> list[Waiter]:
        """Whoever waits now."""
        return [waiter for waiters in list(self.by_run.values()) for waiter in list(waiters)]

    def notify(self, run_id: str, sealed: bytes) -> None:
        """Wake who waits for this run: it changed or, with a result, ended."""
        for waiter in self.by_run.get(run_id, ()):
            waiter.notify(sealed)

    def end(self) -> None:
        """End every wait, also those that are still to begin: the runs go on without them."""
        self.is_over = True
        for waiter in self.all():
            waiter.notify(None)

    def hung_up(self, threads: Container[int]) -> None:
        """End the waits of these threads: their clients are gone. The runs go on."""
        for waiter in self.all():
            if waiter.thread in threads:
                waiter.gone = True
                waiter.notify(None)


class Waiter:
    """One request that waits for one run, inside its ``with`` block."""

    __slots__ = ("_waiting", "_wake", "gone", "run_id", "sealed", "thread")

    def __init__(self, run_id: str, waiting: Waiting) -> None:
        self.run_id = run_id
        self._waiting = waiting
        self.thread = threading.get_ident()
        self.gone = False  # the client has hung up
        self.sealed: bytes | None = None  # the result, once the run has ended
        self._wake = threading.Lock()
        self._wake.acquire()

    def __enter__(self) -> Self:
        self._waiting.by_run.setdefault(self.run_id, []).append(self)
        return self

    def __exit__(self, *_: object) -> None:
        waiters = self._waiting.by_run[self.run_id]
        waiters.remove(self)
        if not waiters:
            self._waiting.by_run.pop(self.run_id, None)

    def wait(self, until: float) -> bool:
        """Until something happens; False if nothing did before ``until`` (time.monotonic)."""
        return self._wake.acquire(timeout=max(until - time.monotonic(), 0.0))

    def notify(self, sealed: bytes | None) -> None:
        """Called by the reader: the run changed or, with a result, ended."""
        if sealed:
            self.sealed = sealed
        with contextlib.suppress(RuntimeError):  # notified before, and not yet awake
            self._wake.release()


class Watcher(Waiter):
    """A `Waiter` that knows since when there is something to look at."""

    __slots__ = ("notified_at",)

    def __init__(self, run_id: str, waiting: Waiting) -> None:
        super().__init__(run_id, waiting)
        self.notified_at = time.monotonic()

    def notify(self, sealed: bytes | None) -> None:
        """Called by the reader: the run changed or ended."""
        self.notified_at = time.monotonic()
        super().notify(sealed)
