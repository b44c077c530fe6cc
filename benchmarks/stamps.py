"""Moments that one process tells another, over a list in Redis: the same for every stack.

`time.monotonic` is one clock for all processes of a machine, on Linux.
"""

from __future__ import annotations

import os
import time
from functools import cache

import redis

__all__ = ["stamp", "stamped"]

PATIENCE = 60  # seconds


def stamp(name: str) -> None:
    """Tell under this name what time it is."""
    moment = time.monotonic()
    _client().rpush(name, moment)


def stamped(name: str) -> float:
    """The moment that was, or will be, told under this name; raises TimeoutError."""
    told = _client().blpop([name], timeout=PATIENCE)
    if told is None:
        raise TimeoutError(f"{name}: nobody has told a moment within {PATIENCE} s")
    return float(told[1])


@cache
def _client() -> redis.Redis:
    """Opened at the first use, after a worker has forked."""
    return redis.Redis.from_url(os.environ["REDIS_URL"], socket_timeout=PATIENCE + 10)
