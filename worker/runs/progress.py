"""How far a run is, as its handler says it: at most ten times a second for those who watch.

The first call is written at once. What comes soon after a write waits, and the latest replaces what
waits; a timer writes it, or the end of the handler.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections.abc import Callable

from callboard import strict_json
from callboard.errors import ServiceUnavailable

__all__ = ["Progress"]

MAX_MESSAGE = 500  # characters


class Progress:
    """The progress of one start of a handler; called by any of its threads."""

    def __init__(self, write: Callable[[bytes], object], pause: float) -> None:
        """``write`` gets the JSON of ``{"fraction", "message"}``, every ``pause`` seconds at most;
        without a pause, each time."""
        self._write = write
        self._pause = pause
        self._is_told = False  # as yet: most handlers never tell
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()  # held while one writes: no older value behind a newer one
        self._waiting: tuple[float, str | None] | None = None
        self._timer: threading.Timer | None = None
        self._next = 0.0  # time.monotonic seconds

    def __call__(self, fraction: float, message: str | None = None) -> None:
        """Tell it; raises TypeError or ValueError for what is no fraction."""
        if isinstance(fraction, bool) or not isinstance(fraction, int | float):
            raise TypeError(f"progress() takes a fraction from 0 to 1, not {fraction!r}")
        if not math.isfinite(fraction) or not 0 <= fraction <= 1:
            raise ValueError(f"progress() takes a fraction from 0 to 1, not {fraction!r}")
        text = None if message is None else str(message)[:MAX_MESSAGE]
        self._is_told = True
        if os.getpid() != self._process:  # forked: there, timer and lock are nobody's
            self._begin()
        with self._lock:
            self._waiting = (float(fraction), text)
            if self._timer is not None:
                return
            wait = self._next - time.monotonic()
            if wait <= 0:
                self._tell()
            else:
                self._timer = threading.Timer(wait, self._tell_in_time)
                self._timer.start()

    def flush(self) -> None:
        """Write what waits: the handler has ended."""
        if not self._is_told or os.getpid() != self._process:
            return
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            with contextlib.suppress(ServiceUnavailable):  # the run's end finds that, too
                self._tell()

    def _tell_in_time(self) -> None:
        with self._lock, contextlib.suppress(ServiceUnavailable):  # the next call finds that, too
            self._timer = None
            self._tell()

    def _tell(self) -> None:
        if self._waiting is None:
            return
        fraction, text = self._waiting
        message = text and text.encode(errors="replace").decode()
        self._write(strict_json.dumps({"fraction": fraction, "message": message}))
        self._waiting = None
        self._next = time.monotonic() + self._pause
