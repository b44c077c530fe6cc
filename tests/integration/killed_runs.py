"""Runs whose worker dies wherever a test says, and a clock that the test moves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import pytest
import redis
import redis.asyncio
from faces import LoopThread

from callboard.connections.keys import Keys
from callboard.connections.mongodb import AsyncStore
from callboard.runs.record import RunRecord
from callboard.runs.seal import Call
from callboard.runs.store import Runs
from worker.loop.execution import Executor
from worker.loop.running import Running
from worker.loop.runs import AsyncRuns
from worker.runs import execution
from worker.runs.execution import execute
from worker.services import Services

__all__ = ["Killed", "Workers"]

KEYS = Keys()
MANY = 10_000


class Killed(BaseException):
    """The worker is dead: it does nothing more, and its claim lapses."""


@dataclass
class Workers:
    """Workers, one after the other, on one Redis."""

    services: Services
    client: redis.Redis
    loop: LoopThread
    mongodb_uri: str
    kill_at: int = 0  # the so-manieth point from now; 0: none
    points: list[str] = field(default_factory=list)  # that were passed
    ahead: int = 0  # milliseconds by which the clock is
    _open: list[Any] = field(default_factory=list)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Make what workers do with the record points at which they can die."""
        for name in ("keep", "park"):
            monkeypatch.setattr(Runs, name, self._plain(name, getattr(Runs, name)))
            monkeypatch.setattr(AsyncRuns, name, self._awaited(name, getattr(AsyncRuns, name)))
        now, now_async = Runs.now, AsyncRuns.now

        async def later(runs: AsyncRuns) -> int:
            return await now_async(runs) + self.ahead

        monkeypatch.setattr(Runs, "now", lambda runs: now(runs) + self.ahead)
        monkeypatch.setattr(AsyncRuns, "now", later)
        monkeypatch.setattr(execution, "KILL_SECONDS", 0.0)

    def point(self, name: str, run_id: str) -> None:
        """A moment at which the worker may die."""
        self.points.append(name)
        self.kill_at -= 1
        if self.kill_at == 0:
            self.die(run_id)

    def die(self, run_id: str) -> None:
        """Now: the claim lapses."""
        if self.client.hget(KEYS.run(run_id), "status") == b"running":
            self.client.hset(KEYS.run(run_id), mapping={"holder": "dead", "lease": 1, "lost": 0})
        raise Killed

    def _plain(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(runs: Runs, run_id: str, *args: Any, **options: Any) -> Any:
            self.point(f"before {name}", run_id)
            answer = method(runs, run_id, *args, **options)
            self.point(f"after {name}", run_id)
            return answer

        return call

    def _awaited(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        async def call(runs: AsyncRuns, run_id: str, *args: Any, **options: Any) -> Any:
            self.point(f"before {name}", run_id)
            answer = await method(runs, run_id, *args, **options)
            self.point(f"after {name}", run_id)
            return answer

        return call

    def start(self, name: str, params: Any = None, **options: Any) -> str:
        """Accept a run."""
        run_id = str(uuid4())
        call = Call(caller="alice", claims={"role": "x"}, jwt="a.b.c", params=params or {})
        given = {"max_queue": MANY, "result_ttl": 60, **options}
        self.services.runs.accept(run_id, self.services.registry.get(name), call, **given)
        return run_id

    def turn(self, run_id: str) -> None:
        """Start the handler once, if the run may be claimed."""
        action = self.services.registry.get(self.read(run_id).action)
        try:
            if action.is_async:
                self.loop.run(self._on_loop(run_id))
            else:
                execute(self.services, action, run_id, tuple)
        except Killed:
            return

    async def _on_loop(self, run_id: str) -> None:
        if not self._open:
            settings = self.services.settings
            client = redis.asyncio.Redis.from_url(settings.redis_url.get_secret_value())
            runs = AsyncRuns(client, self.services.sealer, KEYS)
            self._open = [client, AsyncStore(self.mongodb_uri), runs]
        _, store, runs = self._open
        action = self.services.registry.get(self.read(run_id).action)
        await Executor(self.services, runs, store).execute(Running(run_id, action, 1))

    def read(self, run_id: str) -> RunRecord:
        """The run as it stands."""
        record = self.services.runs.read(run_id)
        assert record is not None
        return record

    def release(self, run_id: str) -> None:
        """The time that the run waits for has come."""
        record = self.read(run_id)
        assert record.due is not None
        self.ahead = max(self.ahead, record.due - self.services.runs.now() + self.ahead)
        self.client.zadd(KEYS.due, {run_id: 1})
        assert self.services.runs.release(500, MANY) == 1

    def finish(
        self,
        run_id: str,
        signals: Sequence[str] = (),
        most: int = 100,
        before: Callable[[], object] = lambda: None,
    ) -> RunRecord:
        """Go on until the run has ended; ``signals``: what is sent when it waits for it.
        ``before``: called before each turn."""
        for _ in range(most):
            before()
            record = self.read(run_id)
            if record.ended is not None:
                return record
            waiting = record.waiting_for
            if waiting is None:
                self.turn(run_id)
            elif waiting.get("name") in signals and waiting["kind"] == "signal":
                name = str(waiting["name"])
                assert self.services.runs.signal(run_id, record.action, name, [name]) == "kept"
            else:
                self.release(run_id)
        raise AssertionError(f"not ended after {most} turns: {self.points[-20:]}")

    def result(self, run_id: str, signals: Sequence[str] = (), **options: Any) -> Any:
        """The data that it ends with; ``options``: of `finish`."""
        outcome = self.finish(run_id, signals, **options).outcome
        assert outcome is not None
        assert outcome.status == "succeeded", outcome.body
        return outcome.envelope()["data"]

    def close(self) -> None:
        """Of the event loop's connections."""

        async def close() -> None:
            client, store, _ = self._open
            await client.aclose()
            await store.close()

        if self._open:
            self.loop.run(close())
