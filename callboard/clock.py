"""Clocks: the database's time decides what is due; a clock that is off is logged.

The machines of an installation have clocks of their own, and one of them may be wrong, or jump. So
whatever is stored about schedules is compared with one clock, that of the database's primary
(``localTime`` of MongoDB's ``hello``). Leases of runs are kept by the broker's clock alone, and
times that are waited for are counted by `time.monotonic`. What is left to a machine's own clock:
whether a token has expired, whether a run waited too long to start, and the times of records.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import redis
import structlog
from pymongo.errors import AutoReconnect

from callboard.connections import mongodb, redis as broker
from callboard.connections.mongodb import AnyDatabase
from callboard.sans_io import Steps, awaited, plain

__all__ = [
    "OFF_SECONDS",
    "AsyncDatabaseClock",
    "Clock",
    "ClockWatch",
    "DatabaseClock",
    "ahead_of_broker",
    "deviation",
]

OFF_SECONDS = 5.0  # a clock that differs by more is off
AGAIN_SECONDS = 60.0  # until a clock that is still off is logged again

_log = structlog.get_logger("callboard.clock")


class Clock(Protocol):
    """Tells the time, and how far this machine's own clock was ahead of it then (seconds)."""

    ahead: float

    def __call__(self) -> datetime:
        """The time, in UTC."""
        ...


class _DatabaseClock:
    """The database's time, asked for each time. ``local``: this machine's clock, epoch seconds."""

    def __init__(
        self,
        database: Callable[[], AnyDatabase],
        local: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._local = local
        self.ahead = 0.0

    def _ask(self) -> Steps[datetime]:
        """The time; half of what the answer took is added. Raises `DatabaseUnavailable`."""
        server_time, took = yield from self._read()
        moment = server_time + took / 2
        self.ahead = self._local() - moment.timestamp()
        return moment

    def _passed(self) -> Steps[datetime]:
        """A time that is over for certain, as late as can be known: what is due by it is not
        early. Raises `DatabaseUnavailable`."""
        return (yield from self._read())[0]

    def _read(self) -> Steps[tuple[datetime, timedelta]]:
        """What the database's clock said, and how long the answer took."""
        with mongodb.guarded():
            asked = time.monotonic()
            try:
                answer = yield self._hello()
            except AutoReconnect:  # over a connection that was closed: PyMongo repeats no command
                asked = time.monotonic()
                answer = yield self._hello()
        server_time: datetime = answer["localTime"]
        return server_time.replace(tzinfo=UTC), timedelta(seconds=time.monotonic() - asked)

    def _hello(self) -> Any:
        return self._database().client.admin.command("hello")


class DatabaseClock(_DatabaseClock):
    """Of plain code."""

    __call__ = plain(_DatabaseClock._ask)
    passed = plain(_DatabaseClock._passed)


class AsyncDatabaseClock(_DatabaseClock):
    """Of an event loop."""

    __call__ = awaited(_DatabaseClock._ask)
    passed = awaited(_DatabaseClock._passed)


def ahead_of_broker(client: redis.Redis, local: Callable[[], float] = time.time) -> float:
    """By how many seconds this machine's clock is ahead of the broker's.

    Raises `BrokerUnavailable`.
    """
    asked = time.monotonic()
    with broker.guarded():
        seconds, micros = client.time()
    took = time.monotonic() - asked
    return local() - (seconds + micros / 1e6 + took / 2)


def deviation(ahead: float) -> str | None:
    """``7200.0 s ahead`` or ``60.2 s behind``; None for a clock that is not off."""
    if abs(ahead) <= OFF_SECONDS:
        return None
    return f"{abs(ahead):.1f} s {'ahead' if ahead > 0 else 'behind'}"


class ClockWatch:
    """Tells the log when this machine's clock is off, again each minute, and when it is right.

    ``whose``: the clock that it is compared with.
    """

    def __init__(self, whose: str) -> None:
        self._whose = whose
        self._logged_at: float | None = None  # time.monotonic seconds; None: it was right

    def note(self, ahead: float) -> None:
        """Take in how far this machine's clock is ahead (seconds)."""
        off, now = deviation(ahead), time.monotonic()
        if off and (self._logged_at is None or now - self._logged_at >= AGAIN_SECONDS):
            self._logged_at = now
            _log.warning("this machine's clock is off", by=off, compared_with=self._whose)
        elif not off and self._logged_at is not None:
            self._logged_at = None
            _log.info("this machine's clock is right again", compared_with=self._whose)
