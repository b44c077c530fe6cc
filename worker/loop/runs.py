"""The run records, as a loop process changes them: `callboard.runs.store`, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import redis.asyncio

from callboard.connections.keys import Keys
from callboard.errors import RunRefused
from callboard.runs.commands import Accepted, Claim, Commands, Wait, decoded
from callboard.runs.counters import observation
from callboard.runs.ends import END, End
from callboard.runs.kept import Kept, kept_steps
from callboard.runs.outcome import Outcome
from callboard.runs.report import Sealed
from callboard.runs.seal import Call, Sealer
from callboard.runs.signals import Sent
from callboard.runs.start import Start
from callboard.runs.store import ReceiveMessage

from .packets import Packets

__all__ = ["AsyncRuns"]


class AsyncRuns(Commands):
    """Those of one event loop. All raise `BrokerUnavailable`."""

    def __init__(self, client: redis.asyncio.Redis, sealer: Sealer, keys: Keys) -> None:
        super().__init__(sealer, keys)
        self._packets = Packets(client, self)

    async def claim(self, run_id: str, action: str, holder: str, lease: float) -> Claim:
        """As `Runs.claim`."""
        command = self.claiming(run_id, action, holder, lease)
        return self.claimed(await self._packets.script("claim", *command))

    async def finish(
        self, run_id: str, action: str, holder: str, outcome: Outcome
    ) -> tuple[bool, ReceiveMessage | None]:
        """As `Runs.finish`; nothing takes the next message."""
        command = self.ending(run_id, action, holder, outcome)
        return bool(await self._packets.script("finish", *command)), None

    async def requeue(
        self, run_id: str, holder: str, delay: float = 0.0, report: Sealed | None = None
    ) -> bool:
        """As `Runs.requeue`."""
        command = self.requeuing(run_id, holder, delay, report)
        return bool(await self._packets.script("requeue", *command))

    async def note_session(self, run_id: str, holder: str, session: str) -> bool:
        """As `Runs.note_session`."""
        command = self.noting(run_id, holder, "session", session)
        return bool(await self._packets.script("note", *command))

    async def note_progress(self, run_id: str, action: str, holder: str, progress: bytes) -> bool:
        """As `Runs.note_progress`."""
        command = self.progressing(run_id, action, holder, progress)
        return bool(await self._packets.script("note", *command))

    async def keep(
        self, run_id: str, action: str, holder: str, number: int, content: bytes, unless: str = ""
    ) -> bytes | None:
        """As `Runs.keep`."""
        command = self.keeping(run_id, action, holder, number, content, unless)
        return self.is_kept(await self._packets.script("keep", *command))

    async def steps(self, run_id: str, action: str, count: int) -> list[Kept]:
        """As `Runs.steps`."""
        fields = self.step_fields(count)
        found = await self._packets.command("HMGET", self.keys.run(run_id), *fields)
        return kept_steps(self.sealer, run_id, action, found)

    async def park(
        self,
        run_id: str,
        action: str,
        holder: str,
        call: Call,
        wait: Wait,
        spent: float,
        report: Sealed | None = None,
    ) -> bool:
        """As `Runs.park`."""
        command = self.parking(run_id, action, holder, call, wait, spent, report)
        return bool(await self._packets.script("park", *command))

    async def actions(self, run_ids: Sequence[str]) -> dict[str, str]:
        """As `Runs.actions`."""
        found = await asyncio.gather(
            *(self._packets.command("HGET", *one, "action") for one in self._each(run_ids))
        )
        known = zip(run_ids, found, strict=True)
        return {run_id: decoded([action])[0] for run_id, action in known if action}

    async def signal(self, run_id: str, action: str, name: str, value: Any) -> Sent:
        """As `Runs.signal`."""
        command = self.signaling(run_id, action, name, value)
        return self.signaled(run_id, await self._packets.script("signal", *command))

    async def signal_sent(self, run_id: str, name: str) -> bytes | None:
        """As `Runs.signal_sent`."""
        found: bytes | None = await self._packets.command(
            "HGET", self.keys.run(run_id), f"signal:{name}"
        )
        return found or None

    async def now(self) -> int:
        """As `Runs.now`."""
        seconds, micros = await self._packets.command("TIME")
        return int(seconds) * 1000 + int(micros) // 1000

    async def accept_many(
        self, starts: Sequence[Start], *, max_queue: int, result_ttl: int
    ) -> list[Accepted | RunRefused]:
        """As `Runs.accept_many`."""
        answers = await self._packets.scripts(
            "accept", lambda: (self.starting(start, max_queue, result_ttl) for start in starts)
        )
        return [self.taken(answer) for answer in answers]

    async def present(self, run_ids: Sequence[str]) -> set[str]:
        """As `Runs.present`."""
        found = await asyncio.gather(
            *(self._packets.command("EXISTS", *one) for one in self._each(run_ids))
        )
        return {run_id for run_id, there in zip(run_ids, found, strict=True) if there}

    async def ends(self, run_ids: Sequence[str]) -> list[End | None]:
        """As `Runs.ends`."""
        found = await asyncio.gather(
            *(self._packets.command("HMGET", *one, *END) for one in self._each(run_ids))
        )
        return [self.end_of(*pair) for pair in zip(run_ids, found, strict=True)]

    async def keyed(self, key: str) -> tuple[str, str] | None:
        """As `Runs.keyed`."""
        return self.keyed_as(await self._packets.command("GET", self.keys.idempotency(key)))

    def _each(self, run_ids: Sequence[str]) -> list[list[str]]:
        return [[self.keys.run(run_id)] for run_id in run_ids]

    async def count(self, name: str) -> None:
        """As `Runs.count`."""
        await self._packets.command("HINCRBY", self.keys.counters, name, 1)

    async def observe(self, what: str, name: str, ms: int) -> None:
        """As `Runs.observe`."""
        for field, number in observation(what, name, ms).items():
            await self._packets.command("HINCRBY", self.keys.counters, field, number)

    async def take(self, queue: str, most: int) -> list[bytes]:
        """Up to so many messages of the queue (its list's key), the oldest first."""
        return await self._packets.command("RPOP", queue, most) or []

    async def put_back(self, queue: str, messages: list[bytes]) -> None:
        """Put messages that were taken in front of the queue; their runs were not claimed."""
        await self._packets.command("RPUSH", queue, *reversed(messages))
