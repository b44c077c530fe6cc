"""Signs of life: which workers and beats are running, for people, probes and `callboard doctor`.

Keys are those of `callboard.connections.keys`: ``Keys.worker`` or ``Keys.beat`` and a name.

Whoever is not ready, because a thread of it failed, shows no sign of life; it says why instead.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import redis

from callboard.connections.keys import Keys
from callboard.connections.redis import guarded

__all__ = ["forget", "seen", "show", "show_unready", "signs", "unready"]


def show(client: redis.Redis, key: str, content: str, seconds: int) -> None:
    """Be seen for ``seconds`` from now."""
    with guarded():
        pipeline = client.pipeline(transaction=False)
        pipeline.set(key, content, ex=seconds)
        pipeline.delete(_unready(key))
        pipeline.execute()


def show_unready(client: redis.Redis, key: str, why: str, seconds: int) -> None:
    """Be seen no more, and for ``seconds`` say why."""
    with guarded():
        pipeline = client.pipeline(transaction=False)
        pipeline.delete(key)
        pipeline.set(_unready(key), why, ex=seconds)
        pipeline.execute()


def forget(client: redis.Redis, key: str) -> None:
    """Stop being seen."""
    with guarded():
        client.delete(key, _unready(key))


def seen(client: redis.Redis, prefix: str) -> list[str]:
    """The names of those who are alive."""
    return sorted(_texts(client, prefix))


def signs(client: redis.Redis, prefix: str) -> dict[str, Mapping[str, Any]]:
    """What those who are alive say of themselves, by name."""
    said: dict[str, Mapping[str, Any]] = {}
    for name, text in _texts(client, prefix).items():
        try:
            content = json.loads(text)
        except ValueError:
            content = None
        said[name] = content if isinstance(content, dict) else {}
    return said


def unready(client: redis.Redis, prefix: str) -> dict[str, str]:
    """Why those who are not ready are not, by name."""
    return _texts(client, _unready(prefix))


def _unready(key: str) -> str:
    """Where it says why ``key`` is not shown."""
    return Keys(key.partition(":")[0]).unready + key


def _texts(client: redis.Redis, prefix: str) -> dict[str, str]:
    """The values of the keys that begin so, by what comes behind."""
    with guarded():
        keys = list(client.scan_iter(f"{prefix}*", count=1000))
        values: Any = client.mget(keys) if keys else []
    return {
        key.decode(errors="replace")[len(prefix) :]: value.decode(errors="replace")
        for key, value in zip(keys, values, strict=True)
        if value is not None
    }
