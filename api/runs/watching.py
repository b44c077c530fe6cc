"""Requests that watch a run: until it ends, or at each change.

However many watch one run, it is read once per change in a process: a read that began after the
change shows it to all of them. And one caller has a bounded number of them in a process, so that
others find a connection free.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any
from weakref import WeakValueDictionary

from callboard.errors import CallboardError, RateLimited
from callboard.runs.history import PastRun
from callboard.runs.record import RunRecord
from callboard.runs.store import Runs

from ..call.replies import Replies
from ..call.waiting import HungUp, Watcher
from .view import shown

__all__ = ["MAX_STREAMS", "MAX_WAITS", "Places", "Seen", "Watch", "Watching"]

MAX_STREAMS = 100  # event streams of one caller in a process
MAX_WAITS = 1000  # requests of one caller that wait for the end of a run
KEEP_ALIVE_SECONDS = 15.0  # then a watcher says that he is still there, and looks for himself
RETRY_SECONDS = 5  # for whoever has too many

Run = RunRecord | PastRun


class Seen:
    """A run as one read found it."""

    def __init__(self, run: Run | None) -> None:
        self.run = run  # None: it is gone

    @property
    def is_final(self) -> bool:
        """Whether nothing more will be seen of it."""
        return self.run is None or self.run.ended is not None

    @cached_property
    def data(self) -> dict[str, Any]:
        """As it is shown."""
        return shown(self.run) if self.run else {}

    @cached_property
    def text(self) -> str:
        """That as JSON, written once for all who watch."""
        return json.dumps(self.data)


class Watching:
    """What the requests of this process watch."""

    def __init__(self, find: Callable[[str], Run | None], runs: Runs, replies: Replies) -> None:
        self._find = find
        self._runs = runs
        self._replies = replies
        self._reads: WeakValueDictionary[str, _Reads] = WeakValueDictionary()
        self.streams = Places(MAX_STREAMS, "event streams")
        self.waits = Places(MAX_WAITS, "waiting requests")

    @contextmanager
    def watch(self, run_id: str) -> Iterator[Watch]:
        """Hear of each change of the run inside this block."""
        reads = self._reads.setdefault(run_id, _Reads(run_id))
        with self._replies.watch(run_id) as watcher:
            yield Watch(self, reads, watcher)

    @property
    def is_over(self) -> bool:
        """Nobody watches any more: the process is about to stop."""
        return self._replies.is_over

    def read(self, reads: _Reads, since: float) -> Seen:
        """The run as it stood at ``since`` (time.monotonic seconds) or later.

        Raises what reading it raises, to all who wanted this read.
        """
        with reads.lock:
            if reads.begun < since or reads.seen is None:
                reads.begun = time.monotonic()
                reads.seen = self._look(reads)
            if isinstance(reads.seen, CallboardError):
                raise reads.seen.with_traceback(None)  # it is raised by many
            return reads.seen

    def _look(self, reads: _Reads) -> Seen | CallboardError:
        try:
            if not reads.is_subscribed:
                self._runs.watch(reads.run_id, self._replies.channel)
                reads.is_subscribed = True
            return Seen(self._find(reads.run_id))
        except CallboardError as error:
            return error


class _Reads:
    """The last read of one run, for all who watch it; gone with the last of them."""

    __slots__ = ("__weakref__", "begun", "is_subscribed", "lock", "run_id", "seen")

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.lock = threading.Lock()
        self.is_subscribed = False  # whether this process hears of changes
        self.begun = float("-inf")  # time.monotonic seconds: when the last read began
        self.seen: Seen | CallboardError | None = None  # what it found, or how it failed


class Watch:
    """What one request sees of a run."""

    def __init__(self, watching: Watching, reads: _Reads, watcher: Watcher) -> None:
        self._watching = watching
        self._reads = reads
        self._watcher = watcher

    def look(self) -> Seen:
        """The run as it stands; raises `BrokerUnavailable` and `DatabaseUnavailable`."""
        return self._watching.read(self._reads, self._watcher.notified_at)

    def wait(self, until: float = float("inf")) -> bool:
        """Until the run changes; False if it has not for 15 s, or until ``until``
        (time.monotonic seconds)."""
        now = time.monotonic()
        if self._watcher.wait(min(until, now + KEEP_ALIVE_SECONDS)):
            return True
        self._watcher.notified_at = max(
            self._watcher.notified_at, now
        )  # perhaps a change was not published
        return False

    def end(self, deadline: float) -> Run | None:
        """The run when it has ended, at ``deadline`` (time.monotonic seconds), or as the process
        stops; None if it is gone. Raises `HungUp`."""
        while True:
            seen = self.look()
            if seen.is_final or self._watching.is_over or time.monotonic() >= deadline:
                return seen.run
            self.wait(deadline)
            if self._watcher.gone:
                raise HungUp(self._reads.run_id)

    def changes(self) -> Iterator[Seen | None]:
        """The run at each change, until its end; None where there was none for 15 s.

        It ends early as the process stops, or when the client has hung up.
        """
        last: Seen | None = None
        while True:
            seen = self.look()
            if last is None or seen.data != last.data:
                last = seen
                yield seen
            if seen.is_final or self._watching.is_over:
                return
            changed = self.wait()
            if self._watcher.gone:
                return
            if not changed:
                yield None


class Places:
    """How many of something each caller has at once in this process."""

    def __init__(self, most: int, what: str) -> None:
        self._most = most
        self._what = what
        self._taken: Counter[str] = Counter()

    @contextmanager
    def taken_by(self, who: str) -> Iterator[None]:
        """Hold a place inside this block; raises `RateLimited` for one who has too many."""
        if self._taken[who] >= self._most:
            raise RateLimited(
                f"Too many {self._what}: one caller has at most {self._most} at once. Close some.",
                retry_after=RETRY_SECONDS,
            )
        self._taken[who] += 1
        try:
            yield
        finally:
            self._taken[who] -= 1
            if self._taken[who] <= 0:
                del self._taken[who]
