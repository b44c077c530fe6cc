"""Long-lived threads: one that ends by an error is told, started again, and seen by the probes.

A thread that nobody looks after ends without a word, and what it kept alive ends some time later.
So every thread that is to live as long as its process is started with `supervise`.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator

import structlog

from callboard.errors import CallboardError

__all__ = [
    "FIRST_PAUSE",
    "LONGEST_PAUSE",
    "SETTLED_SECONDS",
    "Supervised",
    "down",
    "repeat",
    "supervise",
    "tolerant",
]

FIRST_PAUSE = 0.1  # seconds before a thread that failed is started again; doubled each time
LONGEST_PAUSE = 5.0
SETTLED_SECONDS = 5.0  # a thread that ran on for so long after a failure is well again

_log = structlog.get_logger("callboard.threads")
_supervised: list[Supervised] = []  # of this process: those that have not ended as they should
os.register_at_fork(after_in_child=_supervised.clear)


class Supervised:
    """A thread under supervision; made by `supervise`."""

    def __init__(
        self,
        name: str,
        run: Callable[[], object],
        stopped: threading.Event,
        longest_pause: float = LONGEST_PAUSE,
    ) -> None:
        self.name = name
        self._run = run
        self._stopped = stopped
        self._longest_pause = longest_pause
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
                self._log_failure(error, pause)
            self._stopped.wait(pause)
            pause = min(pause * 2, self._longest_pause)
        with contextlib.suppress(ValueError):  # of a process that was forked since
            _supervised.remove(self)

    def _log_failure(self, error: BaseException, pause: float) -> None:
        self._unwell_until = time.monotonic() + pause + SETTLED_SECONDS
        with contextlib.suppress(Exception):  # a log that cannot be written ends no thread
            _log.error("thread failed", thread=self.name, again_in=pause, exc_info=error)


def supervise(
    name: str,
    run: Callable[[], object],
    stopped: threading.Event,
    *,
    longest_pause: float = LONGEST_PAUSE,
) -> Supervised:
    """Have a daemon thread of this process execute ``run`` until it returns.

    What ``run`` raises is logged with its traceback, and it is called again after 0.1 s, then
    0.2 s, at most ``longest_pause``, unless ``stopped`` is set. Meanwhile, and for 5 s more, `down`
    names it.
    """
    thread = Supervised(name, run, stopped, longest_pause)
    thread.start()
    return thread


def repeat(
    name: str, turn: Callable[[], object], wait: Callable[[], object], stopped: threading.Event
) -> None:
    """Turn until ``stopped``, with a wait behind each; for `supervise`.

    While something is away (a `CallboardError`) it is told once, and tried again. Anything else is
    raised, for the supervisor.
    """
    away = False
    while not stopped.is_set():
        try:
            turn()
            away = False
        except CallboardError as error:
            if not away:
                _log.warning(f"{name} waits", why=type(error).__name__)
            away = True
        wait()


@contextlib.contextmanager
def tolerant(who: str, **names: str) -> Iterator[None]:
    """Log what the block raises, and go on behind it: what others wait for must not end with it.

    A `CallboardError` (something is away, or a record does not open) costs a line, anything else
    its traceback. ``names``: what it was about.
    """
    try:
        yield
    except CallboardError as error:
        _log.warning(f"{who} waits", why=type(error).__name__, **names)
    except Exception as error:  # noqa: BLE001 - a caller that goes on is what this is for
        _log.error(f"{who} failed", exc_info=error, **names)


def down() -> list[str]:
    """The names of this process's threads that failed and are not well again; [] if it is ready."""
    return sorted(thread.name for thread in list(_supervised) if thread.is_down)
