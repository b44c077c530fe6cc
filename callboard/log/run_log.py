"""The log of a run: what its handler logs and prints, kept for the application's owner.

Each line goes to the log of the run that the code belongs to: by its context (`contextvars`), which
tasks and `asyncio.to_thread` have from where they are started; in a process that has one run after
the other also by the run in hand. What a thread goes on to log once its run has ended belongs to
nobody.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from contextvars import ContextVar
from weakref import WeakSet

from callboard.log.redaction import Redactor

__all__ = ["LINES", "RunLog", "current", "enter", "enter_alone", "leave_alone"]

LINES = 200  # that are kept of an attempt, the last ones
BYTES = 65_536  # that these have
LONGEST = 8_192  # characters of one
LOOKED_AT = 65_536  # characters of a text that are looked at

Line = tuple[int, str, str, str]  # epoch milliseconds, level, source, text


class RunLog:
    """That of one attempt. It costs nothing until something is logged."""

    __slots__ = ("_begun", "_bytes", "_lines", "_redactor", "_token", "dropped", "ended")

    def __init__(self, redact: Redactor, token: str | None = None) -> None:
        """``token``: the caller's, which is not shown."""
        self._redactor = redact
        self._token = token
        self._lines: deque[Line] | None = None
        self._bytes = 0
        self._begun: dict[tuple[str, int], str] | None = None
        self.dropped = 0  # lines before the first that is kept
        self.ended = False

    @property
    def begun(self) -> dict[tuple[str, int], str]:
        """Lines without an end (`callboard.log.printed`), by stream and thread."""
        if self._begun is None:
            self._begun = {}
        return self._begun

    def add(self, level: str, source: str, text: str) -> None:
        """Keep a line; of many the last ones."""
        text = self._fitting(text)
        line = (time.time_ns() // 1_000_000, level, source, text)
        with _LOCK:
            if self.ended:
                return
            if self._lines is None:
                self._lines = deque()
            self._lines.append(line)
            self._bytes += _size(line)
            while len(self._lines) > LINES or self._bytes > BYTES:
                self._bytes -= _size(self._lines.popleft())
                self.dropped += 1

    def end(self) -> list[Line]:
        """The lines that are kept; no more are taken."""
        with _LOCK:
            self.ended = True
            lines, self._lines = self._lines, None
        return list(lines or ())

    def redact(self, text: str) -> str:
        """The text without secrets."""
        return self._redactor(text, self._token)

    def _fitting(self, text: str) -> str:
        """The line without secrets, cut where it is too long; whatever it is, it is Unicode."""
        text = self.redact(text[:LOOKED_AT])
        if len(text) > LONGEST:
            text = f"{text[:LONGEST]} ... {len(text) - LONGEST} characters"
        return text if text.isascii() else text.encode(errors="replace").decode()


def _size(line: Line) -> int:
    return len(line[3].encode())


_LOCK = threading.Lock()  # of all: what is done under it is short
_current: ContextVar[RunLog | None] = ContextVar("callboard_run_log", default=None)


def enter(log: RunLog) -> None:
    """What this context does from now on belongs to the run of this log."""
    _current.set(log)


def current() -> RunLog | None:
    """The log of the run that this code belongs to; None outside, and once it has ended."""
    log = _current.get() or _alone.of_this_thread()
    return None if log is None or log.ended else log


class _Alone:
    """In a process that has one run after the other, also threads without a context belong to a
    run: to the one in hand, unless they were there before it began."""

    def __init__(self) -> None:
        self.log: RunLog | None = None  # of the run in hand
        self._seen: list[threading.Thread] = []
        self._before: WeakSet[threading.Thread] = WeakSet()  # threads of the runs before

    def of_this_thread(self) -> RunLog | None:
        if self.log is None or threading.current_thread() in self._before:
            return None
        return self.log

    def end(self) -> None:
        self.log = None
        seen = threading.enumerate()
        if seen != self._seen:
            self._seen = seen
            self._before.update(seen)


_alone = _Alone()


def enter_alone(log: RunLog) -> None:
    """`enter`, in a process that has no other run in hand until `leave_alone`."""
    enter(log)
    _alone.log = log


def leave_alone() -> None:
    """The run in hand has ended; threads that it leaves are no later run's."""
    _alone.end()
