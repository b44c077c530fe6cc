"""A handler in the process that calls it, without queue and run record: for tests.

`callboard.testing` reaches this module by its name.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import cached_property, partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, cast

import structlog

from callboard import strict_json
from callboard.connections.mongodb import AsyncStore, Store
from callboard.log.run_log import RunLog
from callboard.registry import Registry
from callboard.runs.ends import End
from callboard.runs.kept import Kept
from callboard.runs.outcome import Outcome
from callboard.runs.seal import Call, Sealer
from callboard.runs.signals import Sent, seal_signal
from callboard.runs.start import Start
from callboard.runs.store import Accepted, Claim, Runs
from callboard.sdk.action import Action
from callboard.sdk.results import ActionResult, fail, ok
from callboard.settings import Settings

from ..hooks.process import InlineResources
from ..services import Services
from ..tools.indexes import create_indexes
from ..tools.tools import Tools
from .attempt import Attempt, Parked, RunEnded
from .handling import outcome_of, outcome_of_async

if TYPE_CHECKING:
    from callboard.testing.memory import RunMemory
    from callboard.testing.records import Records

__all__ = ["inline_resources", "inline_tools", "prepare", "run_inline"]


class _NoRecord:
    """Stands where the run records are: nobody else can hold, cancel or watch an inline run."""

    def __init__(self, records: Records, sealer: Sealer) -> None:
        self._records = records
        self._sealer = sealer

    def note_session(self, run_id: str, holder: str, session: str) -> bool:
        return True

    def note_progress(self, run_id: str, action: str, holder: str, content: bytes) -> bool:
        self._records.progress.append(strict_json.loads(content))
        return True

    def accept_many(self, starts: Sequence[Start], **limits: int) -> list[Accepted]:
        """Note each for `InlineCall.run_started`, a key's once."""
        return [self._accepted(start) for start in starts]

    def _accepted(self, start: Start) -> Accepted:
        if start.idempotency:
            key, digest = start.idempotency
            run_id, _ = self._records.keys.setdefault(key, (start.run_id, digest))
            if run_id != start.run_id or run_id in self._known():
                return Accepted(run_id, joined=True)
        if start.run_id not in self._known():
            self._records.started.append(start)
        return Accepted(start.run_id, joined=False)

    def _known(self) -> set[str]:
        return {start.run_id for start in self._records.not_ended} | self._records.ends.keys()

    def present(self, run_ids: Sequence[str]) -> set[str]:
        return self._known().intersection(run_ids)

    def keyed(self, key: str) -> tuple[str, str] | None:
        return self._records.keys.get(key)

    def ends(self, run_ids: Sequence[str]) -> list[End | None]:
        return [self._records.end(run_id) for run_id in run_ids]

    def keep(
        self, run_id: str, action: str, holder: str, number: int, content: bytes, unless: str = ""
    ) -> bytes | None:
        memory = self._records.memories[run_id]
        if come := memory.signals.get(unless):
            return come
        memory.keep(number, content)
        if unless:  # it was waited for in vain
            memory.signals[unless] = b""
        return None

    def steps(self, run_id: str, action: str, count: int) -> list[Kept]:
        return list(map(Kept.from_json, self._records.memories[run_id].steps.values()))

    def actions(self, run_ids: Sequence[str]) -> dict[str, str]:
        known = self._records.memories
        return {run_id: known[run_id].action.name for run_id in run_ids if run_id in known}

    def signal(self, run_id: str, action: str, name: str, value: Any) -> Sent:
        sealed = seal_signal(self._sealer, run_id, action, name, value)
        return self._records.signal(run_id, name, sealed)

    def signal_sent(self, run_id: str, name: str) -> bytes | None:
        return self._records.memories[run_id].signals.get(name) or None

    def now(self) -> int:
        return self._records.clock()

    def next(self, run_ids: Sequence[str]) -> Start | None:
        """What is to run before all of these have ended; what waits is due then."""
        if any(start.run_id in run_ids for start in self._records.started):
            return self._records.next()
        for run_id, memory in self._records.waiting:
            if run_id in run_ids:
                self._records.clock.reach(memory.due())
                return Start(run_id=run_id, action=memory.action, call=memory.call)
        return None


class _NoAsyncRecord:
    """The same, for async handlers. Those can wait for what they have started: it runs then."""

    def __init__(self, record: _NoRecord, run: Callable[[Start], object]) -> None:
        self._record = record
        self._run = run

    async def note_session(self, run_id: str, holder: str, session: str) -> bool:
        return self._record.note_session(run_id, holder, session)

    async def note_progress(self, run_id: str, action: str, holder: str, progress: bytes) -> bool:
        return self._record.note_progress(run_id, action, holder, progress)

    async def accept_many(self, starts: Sequence[Start], **limits: int) -> list[Accepted]:
        return self._record.accept_many(starts)

    async def present(self, run_ids: Sequence[str]) -> set[str]:
        return self._record.present(run_ids)

    async def keyed(self, key: str) -> tuple[str, str] | None:
        return self._record.keyed(key)

    async def keep(self, *given: Any) -> bytes | None:
        return self._record.keep(*given)

    async def steps(self, run_id: str, action: str, count: int) -> list[Kept]:
        return self._record.steps(run_id, action, count)

    async def actions(self, run_ids: Sequence[str]) -> dict[str, str]:
        return self._record.actions(run_ids)

    async def signal(self, run_id: str, action: str, name: str, value: Any) -> Sent:
        return self._record.signal(run_id, action, name, value)

    async def signal_sent(self, run_id: str, name: str) -> bytes | None:
        return self._record.signal_sent(run_id, name)

    async def now(self) -> int:
        return self._record.now()

    async def ends(self, run_ids: Sequence[str]) -> list[End | None]:
        while start := self._record.next(run_ids):
            await asyncio.to_thread(self._run, start)
        return self._record.ends(run_ids)


class _Loop(Protocol):
    """An event loop, and its store, that plain code hands work to."""

    def run(self, function: Callable[[AsyncStore], Coroutine[Any, Any, Outcome]]) -> Outcome:
        """What the function's coroutine answers."""


class _InlineServices(Services):
    """The worker's services, without its connections."""

    progress_pause = 0.0  # a test sees each

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        store: Store,
        records: Records,
    ) -> None:
        super().__init__(settings, registry)
        self.store = store
        self.record = _NoRecord(records, self.sealer)
        self.park_after = 0.0  # a test sees each wait

    @property
    def runs(self) -> Runs:
        return cast(Runs, self.record)

    @cached_property
    def handler_env(self) -> Mapping[str, str]:
        owner = {"OWNER_USER_ID": self.settings.owner_user_id or ""}
        return MappingProxyType({**super().handler_env, **owner})


def prepare(store: Store, registry: Registry) -> None:
    """Make the indexes that the application declares, as a worker does at its start."""
    create_indexes(store.database(), registry.collections)


def run_inline(
    settings: Settings,
    registry: Registry,
    store: Store,
    loop: _Loop,
    resources: InlineResources,
    action: Action[Any],
    call: Call,
    run_id: str,
    records: Records,
) -> ActionResult[Any]:
    """Run the handler now, on ``loop`` if it is async; its result, as it looks after JSON.

    ``records``: take each progress, each start, what the handler has kept, and the end. Raises what
    the handler raises, after the retries (without their delays) that the action asks for. Of one
    that waits now: ``{"runId", "status": "waiting"}``.
    """
    services = _InlineServices(settings, registry, store, records)
    services.hook_loop = resources.hook_loop
    services.state = resources.state_of(registry.hooks, action.is_async)

    def run(start: Start) -> object:
        known = (start.action, start.call, start.run_id)
        return run_inline(settings, registry, store, loop, resources, *known, records)

    memory = records.begin(run_id, action, call)
    try:
        outcome = _outcome(services, loop, memory, run_id, run)
        records.ends[run_id] = End(
            run_id=run_id,
            action=action.name,
            status=outcome.status,
            caller=call.caller,
            parent=call.parent,
            outcome=outcome,
        )
    except Parked as parked:
        memory.wait, memory.resumed = parked.wait, True
        return ok({"runId": run_id, "status": "waiting"})
    finally:
        if memory.wait is None:
            records.running.pop(run_id, None)
            del records.memories[run_id]
    return outcome.result()


def _outcome(
    services: _InlineServices,
    loop: _Loop,
    memory: RunMemory,
    run_id: str,
    run: Callable[[Start], object],
) -> Outcome:
    action, call = memory.action, memory.call
    while True:
        deadline = time.monotonic() + action.timeout
        claim = Claim(
            state="claimed",
            attempt=memory.attempt,
            steps=max(memory.steps, default=0),
            waited=float(memory.resumed),
        )
        log = RunLog(services.redactor, call.jwt)
        attempt = Attempt(run_id, action, "inline", claim, call, deadline, log)
        try:
            if action.is_async:
                return loop.run(partial(_outcome_on_loop, services, attempt, run))
            return services.isolation.run(outcome_of, services, attempt)
        except RunEnded as end:  # no ActionResult, or no JSON
            refused = {"action": action.name, "reason": end.outcome.reason}
            structlog.get_logger("callboard.worker").error("result refused", **refused)
            return end.outcome
        except Exception as error:
            if not attempt.retries(error):
                raise
            memory.attempt += 1


def _outcome_on_loop(
    services: _InlineServices, attempt: Attempt, run: Callable[[Start], object], store: AsyncStore
) -> Coroutine[Any, Any, Outcome]:
    return outcome_of_async(services, attempt, _NoAsyncRecord(services.record, run), store)


def inline_resources(loop: _Loop) -> InlineResources:
    """What process hooks make for handlers; ``loop``: that of the async ones."""
    return InlineResources(lambda coroutine: loop.run(lambda _: coroutine))


def inline_tools(settings: Settings, store: Store) -> Tools:
    """The tools of a run of the owner that never ends."""
    return Tools(
        database=store.database,
        run_id=str(uuid.uuid4()),
        user_id=settings.owner_user_id,
        integration=_no_integration,
    )


def _no_integration(endpoint: str, data: Mapping[str, Any] | None = None) -> ActionResult[Any]:
    return fail("There are no integrations outside a run")
