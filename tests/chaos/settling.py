"""Settling: wait until nothing is left to do of what was accepted."""

from __future__ import annotations

import time

import redis
from pymongo.database import Database
from pymongo.errors import PyMongoError

from callboard.connections.keys import Keys
from callboard.runs.outbox import OUTBOX
from chaos.stack import Stack

__all__ = ["settle"]

KEYS = Keys()
SETTLE_SECONDS = 120.0  # after which whatever is left is a finding


def settle(stack: Stack) -> bool:
    """Wait until no run is open, parked or waiting for its time; False if some stay so."""
    deadline = time.monotonic() + SETTLE_SECONDS
    with stack.redis() as client, stack.database() as database:
        while not _is_settled(client, database):
            if time.monotonic() > deadline:
                return False
            stack.look_after()
    return True


def _is_settled(client: redis.Redis, database: Database[dict[str, object]]) -> bool:
    """Whether nothing is left. A run that is open may park another, and what is parked comes to be
    open: so the one is looked at before the other and after it."""
    if _open(client):
        return False
    try:
        parked = database[OUTBOX].find_one({}, {"_id": 1})
    except PyMongoError:
        return False
    return parked is None and not _open(client)


def _open(client: redis.Redis) -> int:
    return int(client.zcard(KEYS.open)) + int(client.zcard(KEYS.due))
