"""Long-lived threads: one that ends by an error is told, started again, and seen by the probes.

A thread that nobody looks after ends without a word, and what it kept alive ends some time later.
So every thread that is to live as long as its process is started with `supervise`.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable

import structlog

__all__ = ["FIRST_PAUSE", "LONGEST_PAUSE", "SETTLED_SECONDS", "Supervised", "down", "supervise"]

FIRST_PAUSE = 0.1  # seconds before a thread that failed is started again; doubled each time
LONGEST_PAUSE = 5.0
SETTLED_SECONDS = 5.0  # a thread that ran on for so long after a failure is well again

_log = structlog.get_logger("callboard.threads")
_supervised: list[Supervised] = []  # of this process: those that have not ended as they should
os.register_at_fork(after_in_child=_supervised.clear)


class Supervised:
    """A thread under supervision; made by `supervise`."""

    def __init__(self, name: str, run: Callable[[], object], stopped: threading.Event) -> None:
        self.name = name
        self._run = run
        self._stopped = stopped
        self._unwell_until = 0.0  # time.monotonic seconds
        self._thread = threading.Thread(target=self._supervise, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        _supervised.append(self)
        self._thread.start()

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has ended."""
        self._thread.join(timeout)

    @property
    def is_down(self) -> bool:
        """Whether it is dead, or failed a moment ago."""
        return not self._thread.is_alive() or time.monotonic() < self._unwell_until

    def _supervise(self) -> None:
        pause = FIRST_PAUSE
        while not self._stopped.is_set():
            began = time.monotonic()
            try:
                self._run()
                break
            except (Exception, SystemExit) as error:  # noqa: BLE001 - the thread is needed
                if time.monotonic() - began > SETTLED_SECONDS:
                    pause = FIRST_PAUSE
                self._tell(error, pause)
            self._stopped.wait(pause)
            pause = min(pause * 2, LONGEST_PAUSE)
        with contextlib.suppress(ValueError):  # of a process that was forked since
            _supervised.remove(self)

    def _tell(self, error: BaseException, pause: float) -> None:
        self._unwell_until = time.monotonic() + pause + SETTLED_SECONDS
        with contextlib.suppress(Exception):  # a log that cannot be written ends no thread
            _log.error("thread failed", thread=self.name, again_in=pause, exc_info=error)


def supervise(name: str, run: Callable[[], object], stopped: threading.Event) -> Supervised:
    """Have a daemon thread of this process execute ``run`` until it returns.

    What ``run`` raises is logged with its traceback, and it is called again after 0.1 s, then
    0.2 s, at most 5 s, unless ``stopped`` is set. Meanwhile, and for 5 s more, `down` names it.
    """
    thread = Supervised(name, run, stopped)
    thread.start()
    return thread


def down() -> list[str]:
    """The names of this process's threads that failed and are not well again; [] if it is ready."""
    return sorted(thread.name for thread in list(_supervised) if thread.is_down)
