"""Keys that somebody has overwritten: one of another type stops all who need it."""

from __future__ import annotations

from collections.abc import Iterable

import redis

from callboard.connections.keys import Keys
from callboard.connections.redis import guarded

__all__ = ["spoiled"]

BINDINGS = "_kombu.binding."  # and the exchange: Celery's own tables


def spoiled(client: redis.Redis, keys: Keys, queues: Iterable[str]) -> list[str]:
    """What is wrong with each shared key of another type: ``callboard:open is a string, not a
    zset``. Raises `BrokerUnavailable`."""
    types = {
        **dict.fromkeys((keys.open, keys.due, keys.live, keys.limited, keys.applications), "zset"),
        **dict.fromkeys((keys.ended, *map(keys.queue, queues)), "list"),
        **dict.fromkeys((keys.counters, keys.limits), "hash"),
        **dict.fromkeys((keys.sweep, keys.archiver), "string"),
    }
    with guarded():
        for key in client.scan_iter(f"{keys.celery}{BINDINGS}*", count=1000):
            types[key.decode(errors="replace")] = "set"
        pipeline = client.pipeline(transaction=False)
        for key in types:
            pipeline.type(key)
        found = pipeline.execute(raise_on_error=False)  # where the question is forbidden
    return [
        f"{key} is a {kind.decode()}, not a {wanted}"
        for (key, wanted), kind in zip(types.items(), found, strict=True)
        if isinstance(kind, bytes) and kind.decode() not in (wanted, "none")
    ]
