"""A handler in the process that calls it, without queue and run record: for tests.

`callboard.testing` reaches this module by its name.
"""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Callable, Coroutine, Mapping
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any, Protocol, cast

import structlog

from callboard import strict_json
from callboard.connections.mongodb import AsyncStore, Store
from callboard.registry import Registry
from callboard.runs.outcome import Outcome
from callboard.runs.seal import Call
from callboard.runs.store import Claim, Runs
from callboard.sdk.action import Action
from callboard.sdk.results import ActionResult, fail, ok
from callboard.settings import Settings

from ..services import Services
from ..tools.indexes import create_indexes
from ..tools.tools import Tools
from .attempt import Attempt, RunEnded
from .handling import outcome_of, outcome_of_async

__all__ = ["inline_tools", "prepare", "run_inline"]


class _NoRecord:
    """Stands where the run records are: nobody else can hold, cancel or watch an inline run."""

    def __init__(self, progress: list[dict[str, Any]]) -> None:
        self._progress = progress

    def note_session(self, run_id: str, holder: str, session: str) -> bool:
        return True

    def note_progress(self, run_id: str, action: str, holder: str, content: bytes) -> bool:
        self._progress.append(strict_json.loads(content))
        return True


class _NoAsyncRecord:
    """The same, for async handlers."""

    def __init__(self, record: _NoRecord) -> None:
        self._record = record

    async def note_session(self, run_id: str, holder: str, session: str) -> bool:
        return self._record.note_session(run_id, holder, session)

    async def note_progress(self, run_id: str, action: str, holder: str, progress: bytes) -> bool:
        return self._record.note_progress(run_id, action, holder, progress)


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
        progress: list[dict[str, Any]],
    ) -> None:
        super().__init__(settings, registry)
        self.store = store
        self.record = _NoRecord(progress)

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
    action: Action[Any],
    call: Call,
    progress: list[dict[str, Any]],
) -> ActionResult[Any]:
    """Run the handler now, on ``loop`` if it is async; its result, as it looks after JSON.

    Each progress is appended to ``progress``. Raises what the handler raises, after the
    retries (without their delays) that the action asks for.
    """
    services = _InlineServices(settings, registry, store, progress)
    run_id = str(uuid.uuid4())
    for number in itertools.count(1):
        deadline = time.monotonic() + action.timeout
        claim = Claim(state="claimed", attempt=number)
        attempt = Attempt(run_id, action, "inline", claim, call, deadline)
        try:
            if action.is_async:
                return _as_told(loop.run(partial(_outcome_on_loop, services, attempt)))
            return _as_told(services.isolation.run(outcome_of, services, attempt))
        except RunEnded as end:  # no ActionResult, or no JSON
            refused = {"action": action.name, "reason": end.outcome.reason}
            structlog.get_logger("callboard.worker").error("result refused", **refused)
            return fail(str(end.outcome.error))
        except Exception as error:
            retry = action.retry
            if not retry or not retry.covers(error) or number >= retry.max_attempts:
                raise
    raise AssertionError("unreachable")


def _outcome_on_loop(
    services: _InlineServices, attempt: Attempt, store: AsyncStore
) -> Coroutine[Any, Any, Outcome]:
    return outcome_of_async(services, attempt, _NoAsyncRecord(services.record), store)


def _as_told(outcome: Outcome) -> ActionResult[Any]:
    envelope = outcome.envelope()
    return ok(envelope["data"]) if envelope["success"] else fail(envelope["error"])


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
