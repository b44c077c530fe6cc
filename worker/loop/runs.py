"""The run records, as a loop process changes them: `callboard.runs.store`, awaited."""

from __future__ import annotations

import redis.asyncio

from callboard.runs.counters import observation
from callboard.runs.outcome import Outcome
from callboard.runs.store import Claim, Runs, Take

from .packets import Packets

__all__ = ["AsyncRuns"]


class AsyncRuns:
    """Those of one event loop. All raise `BrokerUnavailable`.

    ``runs``: makes the commands and reads the answers; its own connection stays unused.
    """

    def __init__(self, client: redis.asyncio.Redis, runs: Runs) -> None:
        self._runs = runs
        self._packets = Packets(client, runs)

    async def claim(self, run_id: str, action: str, holder: str, lease: float) -> Claim:
        """As `Runs.claim`."""
        command = self._runs.claiming(run_id, action, holder, lease)
        return self._runs.claimed(await self._packets.script("claim", *command))

    async def finish(
        self, run_id: str, action: str, holder: str, outcome: Outcome
    ) -> tuple[bool, Take | None]:
        """As `Runs.finish`; nothing takes the next message."""
        command = self._runs.ending(run_id, action, holder, outcome)
        return bool(await self._packets.script("finish", *command)), None

    async def requeue(self, run_id: str, holder: str, delay: float = 0.0) -> bool:
        """As `Runs.requeue`."""
        command = self._runs.requeuing(run_id, holder, delay)
        return bool(await self._packets.script("requeue", *command))

    async def note_session(self, run_id: str, holder: str, session: str) -> bool:
        """As `Runs.note_session`."""
        command = self._runs.noting(run_id, holder, "session", session)
        return bool(await self._packets.script("note", *command))

    async def note_progress(self, run_id: str, action: str, holder: str, progress: bytes) -> bool:
        """As `Runs.note_progress`."""
        command = self._runs.progressing(run_id, action, holder, progress)
        return bool(await self._packets.script("note", *command))

    async def count(self, name: str) -> None:
        """As `Runs.count`."""
        await self._packets.command("HINCRBY", self._runs.keys.counters, name, 1)

    async def observe(self, what: str, name: str, ms: int) -> None:
        """As `Runs.observe`."""
        for field, number in observation(what, name, ms).items():
            await self._packets.command("HINCRBY", self._runs.keys.counters, field, number)

    async def take(self, queue: str, most: int) -> list[bytes]:
        """Up to so many messages of the queue (its list's key), the oldest first."""
        return await self._packets.command("RPOP", queue, most) or []

    async def put_back(self, queue: str, messages: list[bytes]) -> None:
        """Put messages that were taken in front of the queue; their runs were not claimed."""
        await self._packets.command("RPUSH", queue, *reversed(messages))
