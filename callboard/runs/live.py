"""The live runs: those that the history does not have yet, newest first.

``live`` holds all of them, ``live:<tag>`` those of one caller and ``live:<run id>`` those that a
run has started, scored by when they were enqueued. The tag is made with the application's key, so
that no name is readable in Redis; while a key is rotated, a caller's runs stand under a tag of
each. A run is put in by
`callboard.runs.store` and taken out by `callboard.runs.ended`, once the history has it: between
them, the two know every run at every moment.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple

import redis

from callboard.connections.keys import Keys
from callboard.connections.redis import guarded
from callboard.runs.scripts import script
from callboard.runs.seal import Sealer

__all__ = ["Live", "Position", "caller_tag"]

LOOKED_AT = 500  # runs in one script: it must not keep others waiting


class Position(NamedTuple):
    """A place in a list of runs, newest first."""

    enqueued: int  # epoch milliseconds
    run_id: str


@lru_cache(maxsize=4096)
def caller_tag(sealer: Sealer, caller: str) -> str:
    """What stands for the caller in Redis."""
    return sealer.sign("caller", caller)


class Live:
    """The live runs of one application."""

    def __init__(self, client: redis.Redis, sealer: Sealer, keys: Keys) -> None:
        self._redis = client
        self._sealer = sealer
        self._key = keys.live
        self._script = client.register_script(script("page", "guard", **keys.constants()))

    def page(
        self,
        *,
        caller: str | None,
        parent: str | None = None,
        action: str | None,
        status: str | None,
        after: Position | None,
        limit: int,
    ) -> list[Position]:
        """Where up to ``limit`` runs after a position are; ``None`` leaves a filter out.

        Of a ``parent`` those of all callers: whoever asks sees to that.
        """
        lists = [f"{self._key}:{parent}"] if parent else self._lists(caller)
        pages = [self._page_of(key, action, status, after, limit) for key in lists]
        return list(islice(heapq.merge(*pages, reverse=True), limit))

    def _lists(self, caller: str | None) -> list[str]:
        """The keys of all live runs, or of this caller's: one for each key of ``SECRET_KEY``."""
        if caller is None:
            return [self._key]
        return [f"{self._key}:{tag}" for tag in self._sealer.signs("caller", caller)]

    def _page_of(
        self,
        key: str,
        action: str | None,
        status: str | None,
        after: Position | None,
        limit: int,
    ) -> list[Position]:
        found: list[Position] = []
        position: Sequence[Any] = after or ("+inf", "")
        while position and len(found) < limit:
            wanted = [action or "", status or "", *position, limit - len(found), LOOKED_AT]
            with guarded(self._key):
                places, position = self._script(keys=[key], args=wanted)
            found += [
                Position(int(enqueued), run_id.decode(errors="replace"))
                for enqueued, run_id in places
            ]
        return found

    def among(self, run_ids: Sequence[str]) -> set[str]:
        """Those of ``run_ids`` that are live."""
        if not run_ids:
            return set()
        with guarded(self._key):
            scores = self._redis.zmscore(self._key, list(run_ids))
        return {run_id for run_id, score in zip(run_ids, scores, strict=True) if score is not None}
