"""Servers that the user named: whether they answer, while the rest starts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from callboard.errors import ServiceUnavailable

__all__ = ["GivenServer", "given_mongodb", "given_redis"]

TIMEOUT = 3.0  # seconds for one try of the driver
PATIENCE = 4.0  # seconds for all of it: a name server that is silent knows no timeout of ours


class GivenServer:
    """A server of the user's, asked in a thread since it was made."""

    def __init__(self, variable: str, ask: Callable[[], object]) -> None:
        self._variable = variable
        self._ask = ask
        self._failure: Exception | None = None
        self._deadline = time.monotonic() + PATIENCE
        self._thread = threading.Thread(target=self._run, name=variable, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._ask()
        except Exception as error:  # noqa: BLE001 - whatever the driver says is told
            self._failure = error

    def wait(self) -> None:
        """Return once it has answered; raises `ServiceUnavailable`, which names the variable."""
        self._thread.join(max(0.0, self._deadline - time.monotonic()))
        if self._thread.is_alive():
            raise self._unavailable(f"no answer within {PATIENCE:g} s")
        if self._failure is not None:
            raise self._unavailable(f"{self._failure!s:.300}") from self._failure

    def _unavailable(self, why: str) -> ServiceUnavailable:
        return ServiceUnavailable(
            f"The server that {self._variable} names cannot be used: {why}. Start it, or take "
            f"{self._variable} out of the environment and of .env to have one started here."
        )


def given_redis(url: str) -> GivenServer:
    """The Redis server at ``url``: does it answer?"""
    return GivenServer("REDIS_URL", lambda: _ping(url))


def given_mongodb(uri: str) -> GivenServer:
    """The MongoDB at ``uri``: does it let us in?"""
    return GivenServer("MONGODB_URI", lambda: _enter(uri))


def _enter(uri: str) -> None:
    import pymongo

    milliseconds = int(TIMEOUT * 1000)
    with pymongo.MongoClient[dict[str, Any]](uri, serverSelectionTimeoutMS=milliseconds) as client:
        client.admin.command("ping")


def _ping(url: str) -> None:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    from callboard.connections.redis_url import RedisUrl

    bounds: dict[str, Any] = {
        "socket_timeout": TIMEOUT,
        "socket_connect_timeout": TIMEOUT,
        "retry": Retry(NoBackoff(), 0),
    }
    pool = redis.ConnectionPool(**{**RedisUrl.parse(url).client_options(), **bounds})
    try:
        redis.Redis(connection_pool=pool).ping()
    finally:
        pool.disconnect()
