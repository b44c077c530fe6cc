"""One run of an async handler, as a loop process executes it beside others."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING

from callboard.connections.mongodb import AsyncStore
from callboard.errors import ServiceUnavailable
from callboard.runs.outcome import Outcome
from callboard.sans_io import arun

from ..runs.attempt import Attempt, Delivered
from ..runs.fire import close_fire_async, take_fire_async
from ..runs.handling import outcome_of_async
from ..runs.lifecycle import TimedOut, live
from ..tools.transaction import kill_sessions_async
from .running import Running
from .runs import AsyncRuns

if TYPE_CHECKING:
    from ..services import Services

__all__ = ["Executor"]


class Executor:
    """Executes runs in this loop."""

    def __init__(self, services: Services, runs: AsyncRuns, store: AsyncStore) -> None:
        self.services = services
        self.runs = runs
        self.store = store

    async def execute(self, running: Running) -> Delivered:
        """The whole run (`worker.runs.lifecycle`)."""
        holder = self.services.holder(os.getpid(), running.number)
        means = _Async(self, running)
        return await arun(live(self.services, means, running.action, running.run_id, holder))


class _Async:
    """`Means` of a loop."""

    def __init__(self, executor: Executor, running: Running) -> None:
        self._executor = executor
        self._running = running
        self.claim = executor.runs.claim
        self.requeue = executor.runs.requeue
        self.park = executor.runs.park
        self.finish = executor.runs.finish
        self.pause = asyncio.sleep

    async def kill_session(self, session: str) -> None:
        with contextlib.suppress(ServiceUnavailable):  # then the handler will meet it too
            await kill_sessions_async(self._executor.store.database(), [session])

    async def handle(self, attempt: Attempt) -> Outcome:
        """Within the time that the action has."""
        running, loop = self._running, asyncio.get_running_loop()
        left = attempt.action.timeout - attempt.claim.spent
        timer = loop.call_later(max(left, 0.0), running.stop, TimedOut)
        try:
            outcome: Outcome = await running.handle(self._outcome(attempt))
            return outcome
        finally:
            timer.cancel()

    async def close_fire(self, attempt: Attempt, outcome: Outcome) -> None:
        await close_fire_async(self._executor.services, attempt, outcome, self._executor.store)

    def note_spent(self, seconds: float) -> None:
        """Nothing: the loop itself sees to the time that handlers have."""

    def was_taken(self) -> None:
        """Nothing: what its keeper kills is the process, and for no single run."""

    async def _outcome(self, attempt: Attempt) -> Outcome:
        executor = self._executor
        observe = executor.runs.observe
        if not await take_fire_async(executor.services, attempt, executor.store, observe):
            return Outcome.canceled(attempt.run_id)
        of_loop = (executor.runs, executor.store)
        return await outcome_of_async(
            executor.services, attempt, *of_loop, lambda: self._running.why
        )
