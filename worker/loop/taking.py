"""Taking: a loop process asks its queues for runs while it has room for them.

One that is full takes none, so that the next worker gets them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

import redis.asyncio
import structlog

from callboard.connections.redis import guarded
from callboard.errors import BrokerUnavailable

from .runs import AsyncRuns

__all__ = ["Taking"]

AT_ONCE = 32  # messages: what is taken by a process that dies comes back a moment later
WAIT_SECONDS = 0.2  # for a message; then the process looks whether it is to end
AWAY_SECONDS = 0.5  # between two tries while the broker is away

_log = structlog.get_logger("callboard.worker")


class Taking:
    """Of one loop process. ``queues``: the keys of their lists."""

    def __init__(self, client: redis.asyncio.Redis, runs: AsyncRuns, queues: Sequence[str]) -> None:
        self._redis = client
        self._runs = runs
        self._queues = deque(queues)
        self._room = asyncio.Event()
        self._away = False  # as we have told

    def has_room(self) -> None:
        """A run has ended."""
        self._room.set()

    async def take(
        self,
        free: Callable[[], int],
        start: Callable[[bytes], object],
        may_go_on: Callable[[], bool],
    ) -> None:
        """Take messages, and start each, until it may not go on.

        ``free``: for how many there is room. A message that is taken when it may not go on any
        more goes back.
        """
        while may_go_on():
            if not free():
                await self._wait_for_room()
                continue
            try:
                queue, messages = await self._messages(min(free(), AT_ONCE))
                self._away = False
            except BrokerUnavailable as error:
                await self._log_away(error)
                continue
            if messages and not may_go_on():
                await self._runs.put_back(queue, messages)
                return
            for message in messages:
                start(message)

    async def _messages(self, most: int) -> tuple[str, list[bytes]]:
        """What waits in the first queue that has something, and where; waits a moment for it."""
        self._queues.rotate(-1)  # each comes first in its turn
        for queue in self._queues:
            if messages := await self._runs.take(queue, most):
                return queue, messages
        with guarded(" ".join(self._queues)):
            popped = await self._redis.execute_command("BRPOP", *self._queues, WAIT_SECONDS)
        return (popped[0].decode(), [popped[1]]) if popped else ("", [])

    async def _wait_for_room(self) -> None:
        self._room.clear()
        try:
            await asyncio.wait_for(self._room.wait(), WAIT_SECONDS)
        except TimeoutError:
            return

    async def _log_away(self, error: Exception) -> None:
        if not self._away:
            self._away = True
            _log.warning("the broker is away", why=str(error)[:300])
        await asyncio.sleep(AWAY_SECONDS)
