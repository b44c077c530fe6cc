"""Sessions: a thread that ends the database sessions of runs that were stopped.

A worker's child that is killed leaves its transaction open on the server, and other writers of its
records wait for it. The database may be away, or hang, while a run has to be ended: so whoever
stops a run asks here, and waits for as long as it likes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import structlog
from pymongo.database import Database
from pymongo.errors import PyMongoError

from callboard.errors import ServiceUnavailable

from ..tools.transaction import kill_sessions

__all__ = ["Sessions"]

AGAIN_SECONDS = 1.0  # while the database is away
KEPT_SECONDS = 60.0  # as long as a server by its default lets a transaction live

_log = structlog.get_logger("callboard.worker")


class _Wanted(NamedTuple):
    session: str
    until: float  # time.monotonic seconds: then it has ended by itself
    done: threading.Event


class Sessions:
    """Those that one worker wants to end."""

    def __init__(self, database: Callable[[], Database[dict[str, Any]]]) -> None:
        self._database = database
        self._wanted: list[_Wanted] = []
        self._lock = threading.Lock()
        self._wake = threading.Event()

    def end(self, sessions: Iterable[str], seconds: float) -> bool:
        """Have the thread end them (UUIDs' texts); whether they were within so many seconds."""
        until = time.monotonic() + KEPT_SECONDS
        wanted = [_Wanted(one, until, threading.Event()) for one in sessions]
        if not wanted:
            return True
        with self._lock:
            self._wanted += wanted
        self._wake.set()
        deadline = time.monotonic() + seconds
        return all(one.done.wait(max(deadline - time.monotonic(), 0.0)) for one in wanted)

    def run(self, stopped: threading.Event) -> None:
        """End what is asked for, until ``stopped``; the thread's function."""
        while not stopped.is_set():
            if self._wake.wait(AGAIN_SECONDS):
                self._wake.clear()
            self.turn()

    def turn(self) -> None:
        """End, in one command, all that is wanted; keep it while the database is away."""
        with self._lock:
            wanted, self._wanted = self._wanted, []
        now = time.monotonic()
        wanted = [one for one in wanted if one.until > now]
        if not wanted:
            return
        try:
            kill_sessions(self._database(), [one.session for one in wanted])
        except ServiceUnavailable as error:
            _log.warning("sessions of stopped runs are still open", why=str(error))
            with self._lock:
                self._wanted += wanted
            return
        except PyMongoError as error:
            _log.error("the database ends no session", why=str(error)[:200])
        for one in wanted:
            one.done.set()
