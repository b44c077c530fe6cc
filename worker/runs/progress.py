"""How far a run is, as its handler says it: at most ten times a second for those who watch.

The first call is written at once. What comes soon after a write waits, and the latest replaces what
waits; a timer writes it, or the end of the handler.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import threading
import time
from collections.abc import Awaitable, Callable

from callboard import strict_json
from callboard.errors import ServiceUnavailable
from callboard.numbers import is_number

__all__ = ["AsyncProgress", "Progress"]

MAX_MESSAGE = 500  # characters

Update = tuple[float, str | None]


def _checked(fraction: float, message: str | None) -> Update:
    """An update to write; raises TypeError or ValueError for what is no fraction."""
    if not is_number(fraction):
        raise TypeError(f"progress() takes a fraction from 0 to 1, not {fraction!r}")
    if not math.isfinite(fraction) or not 0 <= fraction <= 1:
        raise ValueError(f"progress() takes a fraction from 0 to 1, not {fraction!r}")
    return float(fraction), None if message is None else str(message)[:MAX_MESSAGE]


def _content(update: Update) -> bytes:
    """The JSON of ``{"fraction", "message"}``."""
    fraction, text = update
    message = text and text.encode(errors="replace").decode()
    return strict_json.dumps({"fraction": fraction, "message": message})


class Progress:
    """The progress of one start of a handler; called by any of its threads."""

    def __init__(self, write: Callable[[bytes], object], pause: float) -> None:
        """``write`` gets the JSON of ``{"fraction", "message"}``, every ``pause`` seconds at most;
        without a pause, each time."""
        self._write = write
        self._pause = pause
        self._is_used = False  # as yet: most handlers report no progress
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()  # held while one writes: no older value behind a newer one
        self._waiting: Update | None = None
        self._timer: threading.Timer | None = None
        self._next = 0.0  # time.monotonic seconds

    def __call__(self, fraction: float, message: str | None = None) -> None:
        """Report progress; raises TypeError or ValueError for what is no fraction."""
        update = _checked(fraction, message)
        self._is_used = True
        if os.getpid() != self._process:  # forked: there, timer and lock are nobody's
            self._begin()
        with self._lock:
            self._waiting = update
            if self._timer is not None:
                return
            wait = self._next - time.monotonic()
            if wait <= 0:
                self._notify()
            else:
                self._timer = threading.Timer(wait, self._write_in_time)
                self._timer.start()

    def flush(self) -> None:
        """Write what waits: the handler has ended."""
        if not self._is_used or os.getpid() != self._process:
            return
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            with contextlib.suppress(ServiceUnavailable):  # the run's end finds that, too
                self._notify()

    def _write_in_time(self) -> None:
        with self._lock, contextlib.suppress(ServiceUnavailable):  # the next call finds that, too
            self._timer = None
            self._notify()

    def _notify(self) -> None:
        if self._waiting is None:
            return
        self._write(_content(self._waiting))
        self._waiting = None
        self._next = time.monotonic() + self._pause


class AsyncProgress:
    """As `Progress`, on an event loop: called by any task of the handler."""

    def __init__(self, write: Callable[[bytes], Awaitable[object]], pause: float) -> None:
        self._write = write
        self._pause = pause
        self._lock = asyncio.Lock()  # held while one writes: no older value behind a newer one
        self._waiting: Update | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None  # kept: the loop itself keeps none
        self._next = 0.0  # time.monotonic seconds

    async def __call__(self, fraction: float, message: str | None = None) -> None:
        """Report progress; raises TypeError or ValueError for what is no fraction."""
        self._waiting = _checked(fraction, message)
        if self._timer is not None:
            return
        async with self._lock:
            wait = self._next - time.monotonic()
            if wait <= 0:
                await self._notify()
            elif self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(wait, self._write_in_time)

    async def flush(self) -> None:
        """Write what waits: the handler has ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting is not None:
            await self._write_tolerantly()

    def _write_in_time(self) -> None:
        self._timer = None
        self._task = asyncio.get_running_loop().create_task(self._write_tolerantly())

    async def _write_tolerantly(self) -> None:
        async with self._lock:
            with contextlib.suppress(
                ServiceUnavailable
            ):  # the next call, or the run's end, finds it
                await self._notify()

    async def _notify(self) -> None:
        update = self._waiting
        if update is None:
            return
        await self._write(_content(update))
        if self._waiting is update:  # and nothing newer, which came meanwhile
            self._waiting = None
        self._next = time.monotonic() + self._pause
