"""Whose processes use a namespace: two applications in one would take each other's runs.

Each process shows whose it is, and looks who else is there. Of a worker that takes a message of
another application nobody hears: it cannot read it, and drops it. The other's sweep sends it
again after some seconds, so that every call is merely slow, and some come to nothing.

A process's row in the sorted set `Keys.applications` is JSON; its score is when it was shown, by
the broker's clock in seconds. Of a key no more than a keyed hash is shown.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, cast
from urllib.parse import unquote

import redis
import structlog

from callboard.connections.keys import Keys
from callboard.connections.redis import guarded
from callboard.connections.url import ConnectionUrl
from callboard.processes.threads import repeat, tolerant
from callboard.runs.seal import Sealer
from callboard.settings import Settings

__all__ = ["ApplicationHeartbeat", "Process", "conflict", "foreign", "processes"]

PAUSE_SECONDS = 1.0
ALIVE_SECONDS = 5.0  # how long a row is good for
AGAIN_SECONDS = 60.0  # until foreign processes are logged again
MOST = 1000  # rows that are looked at
SHOWN = 80  # characters of what another process says of itself

_log = structlog.get_logger("callboard.namespace")


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process, and whose it is."""

    name: str  # "worker celery@host"
    marks: Sequence[str]  # one for each key of SECRET_KEY
    database: str
    actions: str  # the package

    @classmethod
    def of(cls, settings: Settings, name: str) -> Process:
        """One of the application that has these settings."""
        path = ConnectionUrl.parse(settings.mongodb_uri.get_secret_value(), "").path
        signs = Sealer(settings.secret_keys).signs("application")
        return cls(
            name=name,
            marks=[sign[:16] for sign in signs],
            database=unquote(path.strip("/")),
            actions=settings.actions,
        )

    def differs(self, other: Process) -> list[str]:
        """What the other has that this one's application has not; [] if they are of one."""
        different = []
        if not set(self.marks) & set(other.marks):
            different.append("another SECRET_KEY")
        for what in ("database", "actions"):
            theirs = getattr(other, what)
            if theirs != getattr(self, what):
                different.append(f"{what} {ascii(theirs)[:SHOWN]}")
        return different


class ApplicationHeartbeat:
    """Shows one process, and logs the processes of another application."""

    def __init__(self, client: redis.Redis, keys: Keys, process: Process) -> None:
        self._redis = client
        self._keys = keys
        self._process = process
        self._row = json.dumps(asdict(process))
        self._logged_at: float | None = None  # time.monotonic seconds

    def run(self, stopped: threading.Event) -> None:
        """Do it until ``stopped``, then be there no more; a thread's function."""
        repeat("namespace", self.turn, partial(stopped.wait, PAUSE_SECONDS), stopped)
        with tolerant("namespace"), guarded():
            self._redis.zrem(self._keys.applications, self._row)

    def turn(self) -> None:
        """Do it once. Raises `BrokerUnavailable`."""
        now = _now(self._redis)
        with guarded():
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.zadd(self._keys.applications, {self._row: now})
            pipeline.zremrangebyscore(self._keys.applications, "-inf", now - 2 * ALIVE_SECONDS)
            pipeline.execute()
        found = foreign(self._process, processes(self._redis, self._keys))
        lately = self._logged_at is not None and time.monotonic() < self._logged_at + AGAIN_SECONDS
        if found and not lately:
            self._logged_at = time.monotonic()
            _log.error(conflict(self._process, found, self._keys))


def processes(client: redis.Redis, keys: Keys) -> list[Process]:
    """Those that use the namespace now. Raises `BrokerUnavailable`."""
    since = _now(client) - ALIVE_SECONDS
    with guarded():
        rows = client.zrangebyscore(keys.applications, since, "+inf", 0, MOST)
    return [process for row in cast("list[bytes]", rows) if (process := _process(row))]


def foreign(mine: Process, others: Iterable[Process]) -> list[Process]:
    """Those of another application than mine."""
    return [other for other in others if mine.differs(other)]


def conflict(mine: Process, found: Sequence[Process], keys: Keys) -> str:
    """Who the foreign processes are, and what to do."""
    listed = [
        f"{ascii(other.name)[1:-1][:SHOWN]} ({', '.join(mine.differs(other))})"
        for other in found[:5]
    ]
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    return (
        f"Another application uses the namespace {keys.namespace!r} of this Redis: "
        f"{'; '.join(listed)}{more}. They take each other's runs. Give each a CALLBOARD_NAMESPACE "
        "of its own; if it is one application, give all of its processes the same settings"
    )


def _now(client: redis.Redis) -> float:
    """The broker's time."""
    with guarded():
        seconds, micros = client.time()
    return seconds + micros / 1e6


def _process(row: bytes) -> Process | None:
    """What a row says; None for what no process of ours has written."""
    try:
        fields: Any = json.loads(row)
        process = Process(**fields)
    except (ValueError, TypeError, RecursionError):
        return None
    texts = (process.name, process.database, process.actions)
    if not isinstance(process.marks, list) or not all(
        isinstance(text, str) for text in (*texts, *process.marks)
    ):
        return None
    return process
