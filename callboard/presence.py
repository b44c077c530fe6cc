"""Signs of life: which workers and beats are running, for people, probes and `callboard doctor`."""

from __future__ import annotations

import redis

from callboard.broker import guarded

__all__ = ["BEAT", "WORKER", "forget", "seen", "show"]

WORKER = "callboard:worker:"  # then the worker's host name
BEAT = "callboard:beat:"  # then the beat's host name


def show(client: redis.Redis, key: str, content: str, seconds: int) -> None:
    """Be seen for ``seconds`` from now."""
    with guarded():
        client.set(key, content, ex=seconds)


def forget(client: redis.Redis, key: str) -> None:
    """Stop being seen."""
    with guarded():
        client.delete(key)


def seen(client: redis.Redis, prefix: str) -> list[str]:
    """The names of those who are alive."""
    with guarded():
        return sorted(key.decode()[len(prefix) :] for key in client.scan_iter(f"{prefix}*"))
