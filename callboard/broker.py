"""How Callboard's own code reaches Redis."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry as Reconnect

from callboard.errors import BrokerUnavailable
from callboard.settings import Settings

__all__ = ["connect", "guarded"]

TIMEOUT = 1.5  # seconds for one command: a call must be refused within 2 s


def connect(settings: Settings, *, max_connections: int = 64) -> redis.Redis:
    """A client with a pool of its own; it connects on first use.

    A command that meets a dead connection is sent once more on a new one, so every command
    that Callboard sends may safely run twice.
    """
    pool = redis.BlockingConnectionPool.from_url(
        settings.redis_url.get_secret_value(),
        max_connections=max_connections,
        timeout=TIMEOUT,
        socket_timeout=TIMEOUT,
        socket_connect_timeout=TIMEOUT,
        retry=Reconnect(NoBackoff(), 1),
        retry_on_error=[redis.ConnectionError],
        client_name="callboard",
    )
    return redis.Redis(connection_pool=pool)


@contextmanager
def guarded() -> Iterator[None]:
    """Turn every failure of Redis into `BrokerUnavailable`."""
    try:
        yield
    except (redis.RedisError, OSError) as error:
        raise BrokerUnavailable(
            f"The broker is not available ({type(error).__name__}). Try again shortly."
        ) from error
