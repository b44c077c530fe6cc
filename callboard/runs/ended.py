"""The runs that ended and that the history is to take.

`callboard.runs.store` puts each on the list ``ended``, as ``<run id> <end, epoch ms>``,
and its record stays in Redis. An archiver (`worker.archive.archiver`) takes the first ones, writes
them, and settles them: only then do they leave the list, and their records begin to expire.

An archiver that dies between the two leaves the list as it was, and the next writes the same
runs again, which changes nothing. Of two that took the same runs, the second settles nothing:
each entry is removed only while it is the first of the list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from callboard.connections.keys import Keys
from callboard.connections.redis import guarded
from callboard.runs.counters import BOUNDS
from callboard.runs.scripts import lua_list, script

__all__ = ["Ended", "EndedRun"]

MOST_BYTES = 8 * 1024 * 1024  # of records in one `Ended.take`, if more than one


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedRun:
    """An entry of the list and the run's record, sealed; empty where there is nothing to write."""

    entry: bytes
    run_id: str
    values: Mapping[bytes, bytes]


class Ended:
    """The list of ended runs."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._redis = client
        self._keys = keys
        names = keys.constants()
        self._take = client.register_script(script("take", "guard", **names))
        self._settle = client.register_script(
            script("settle", "guard", BOUNDS=lua_list(BOUNDS), **names)
        )

    def take(self, holder: str, turn: int, count: int) -> list[EndedRun]:
        """The first ``count`` runs at most; none while it is another holder's turn.

        A turn ends ``turn`` seconds after the holder's last `take`. It only spares double work:
        nothing depends on it.
        """
        with guarded(self._keys.ended):
            taken: list[tuple[bytes, list[bytes]]] = self._take(
                keys=[self._keys.ended, self._keys.archiver],
                args=[holder, turn, count, MOST_BYTES],
            )
        return [
            EndedRun(
                entry=entry,
                run_id=entry.partition(b" ")[0].decode(errors="replace"),
                values=dict(zip(fields[::2], fields[1::2], strict=True)),
            )
            for entry, fields in taken
        ]

    def pass_on(self) -> None:
        """Let another have its turn now."""
        with guarded():
            self._redis.delete(self._keys.archiver)

    def settle(self, runs: Sequence[tuple[EndedRun, int]]) -> int:
        """The history has these, the first of the list, each to be kept that many seconds.

        The record expires its own time to live after the end, or after that long if it is more.
        Returns how many were settled here; the rest were settled by another.
        """
        arguments: list[Any] = []
        for run, keep in runs:
            arguments += [run.entry, keep * 1000]
        with guarded(self._keys.ended):
            keys = [self._keys.ended, self._keys.live, self._keys.counters]
            return int(self._settle(keys=keys, args=arguments))

    def __len__(self) -> int:
        return self.backlog()[0]

    def backlog(self) -> tuple[int, float]:
        """How many runs are on the list, and how long ago, in seconds, the first one ended."""
        with guarded(self._keys.ended):
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.llen(self._keys.ended)
            pipeline.lindex(self._keys.ended, 0)
            pipeline.time()
            length, first, (now, _) = pipeline.execute()
        ended = (first or b"").partition(b" ")[2]
        return int(length), now - int(ended) / 1000 if ended.isdigit() and len(ended) < 16 else 0.0
