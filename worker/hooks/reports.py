"""Reports: what the worker's processes tell its main process of their process hook.

Over a pipe that is made before they are forked. A report is one line, short enough to be written
whole; one that does not fit into the pipe is left out.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from typing import NamedTuple

from callboard.sdk.hooks import Hook

from ..lease.table import is_alive

__all__ = ["Reports"]

MAX_WHY = 500  # characters, of 6 bytes at most: 4,096 bytes (PIPE_BUF) go at once on Linux
SLOW_SECONDS = 5.0  # that a hook may take before the worker counts as not ready


class _Report(NamedTuple):
    """How a process that is not ready stands."""

    why: str
    failed: bool  # else it has begun
    since: float  # time.monotonic seconds


class Reports:
    """Those of one worker."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self._text = b""
        self._ready: set[int] = set()
        self._others: dict[int, _Report] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the pipe, in this process."""
        os.close(self._read)
        os.close(self._write)

    # In a process that runs handlers

    def begins(self, hook: Hook) -> None:
        """The hook is about to be called."""
        self._send(
            "begins", f"{hook.where}: @hooks.process {hook.name!r} has not come to its yield"
        )

    def failed(self, why: str) -> None:
        """The hook has raised."""
        self._send("failed", why)

    def ready(self) -> None:
        """The process goes on."""
        self._send("ready", "")

    def _send(self, what: str, why: str) -> None:
        line = json.dumps([os.getpid(), what, why[:MAX_WHY]])
        with contextlib.suppress(BlockingIOError):
            os.write(self._write, f"{line}\n".encode())

    # In the main process

    def are_ready(self, pids: set[int]) -> bool:
        """Whether none of these processes is still to come: each is ready, or dead."""
        self._look()
        return all(pid in self._ready or not is_alive(pid) for pid in pids)

    def failures(self) -> list[str]:
        """Why living processes are not ready, those whose hook has raised."""
        self._look()
        return [one.why for pid, one in self._living() if one.failed]

    def waiting(self, seconds: float = SLOW_SECONDS) -> list[str]:
        """The same, and of those whose hook takes longer than so."""
        self._look()
        since = time.monotonic() - seconds
        return [one.why for _, one in self._living() if one.failed or one.since <= since]

    def _living(self) -> list[tuple[int, _Report]]:
        with self._lock:
            self._others = {pid: one for pid, one in self._others.items() if is_alive(pid)}
            return list(self._others.items())

    def _look(self) -> None:
        with self._lock:
            with contextlib.suppress(BlockingIOError):
                while some := os.read(self._read, 65_536):
                    self._text += some
            *lines, self._text = self._text.split(b"\n")
            for line in lines:
                self._note(*json.loads(line))

    def _note(self, pid: int, what: str, why: str) -> None:
        self._others.pop(pid, None)
        self._ready.discard(pid)
        if what == "ready":
            self._ready.add(pid)
        else:
            self._others[pid] = _Report(why, what == "failed", time.monotonic())
