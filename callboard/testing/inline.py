"""Actions in this process: the handler, its params, its tools and a real database.

What a call checks before a run exists is checked here, too; the queue, the time limit and the
lease of a run are not there. For those see `callboard.testing.live`.
"""

from __future__ import annotations

import importlib
import secrets
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pymongo.database import Database

from callboard import strict_json
from callboard.connections.mongodb import Store
from callboard.errors import NotFound
from callboard.layout import WORKER
from callboard.registry import Registry, discover
from callboard.runs.kept import value_text
from callboard.runs.seal import Call, Sealer
from callboard.runs.signals import seal_signal
from callboard.sdk.action import Action
from callboard.sdk.context import ActionTools
from callboard.sdk.names import signal_name
from callboard.sdk.request import ActionRequest
from callboard.sdk.results import ActionResult
from callboard.settings import Settings
from callboard.stack.folder import DataFolder
from callboard.stack.secantus import start_mongodb
from callboard.stack.supervisor import Supervisor
from callboard.stack.tokens import mint_token
from callboard.testing.loop import HandlerLoop
from callboard.testing.records import Records
from callboard.testing.servers import own_database

__all__ = ["InlineCall", "InlineStack"]

OWNER = "owner"  # unless OWNER_USER_ID names another one
PUBLIC_URL = "http://callboard.test"  # unless CALLBOARD_PUBLIC_URL names another one


@dataclass(frozen=True, slots=True, kw_only=True)
class InlineCall:
    """Calls actions for one test."""

    settings: Settings
    registry: Registry
    store: Store
    loop: HandlerLoop
    resources: Any  # what process hooks have made: `worker.hooks.process.InlineResources`
    records: Records = field(default_factory=Records)

    def __call__(
        self,
        action: str,
        params: Mapping[str, Any] | None = None,
        *,
        as_user: str | None = "alice",
        claims: Mapping[str, Any] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> ActionResult[Any]:
        """Call an action, plain or async, and return its handler's result, as it looks after JSON.

        ``as_user``: the caller; None for an anonymous one. ``claims``: of its token, besides
        ``sub``. ``body`` and ``headers``: of the request to an action with ``raw=True``.

        A call that is refused raises what the API would answer: `Unauthorized`,
        `Forbidden`, `UnknownAction`, `InvalidParams`. What the handler raises is raised here,
        after the retries (without their delays) that the action asks for. Of a run that waits the
        data is ``{"runId", "status": "waiting"}``: it goes on with `signal` or `advance`.
        """
        known = self.registry.permitted(action, as_user, self.settings.owner_user_id)
        sent = strict_json.loads(strict_json.dumps(dict(params or {})))
        known.validate(sent)
        if not known.raw and (body is not None or headers is not None):
            raise ValueError(f"body and headers: action {action!r} is not declared with raw=True")
        made = Call(
            caller=as_user,
            claims={"sub": as_user, **(claims or {})} if as_user is not None else {},
            jwt=as_user and self.token(as_user, **(claims or {})),
            params=sent,
            request=ActionRequest.of((headers or {}).items(), body or b"") if known.raw else None,
        )
        return self._run(known, made, str(uuid.uuid4()))

    def _run(self, action: Action, made: Call, run_id: str) -> ActionResult[Any]:
        result: ActionResult[Any] = _worker().run_inline(
            self.settings, self.registry, self.store, self.loop, self.resources,
            action, made, run_id, self.records,
        )  # fmt: skip
        return result

    @property
    def progress(self) -> list[dict[str, Any]]:
        """What handlers reported, in order: ``{"fraction": 0.5, "message": "half"}``."""
        return self.records.progress

    @property
    def started(self) -> list[dict[str, Any]]:
        """What handlers have started and `run_started` has not run yet, in order:
        ``{"runId", "action", "params", "caller", "delay"}``, the delay in seconds."""
        return [
            {
                "runId": start.run_id,
                "action": start.action.name,
                "params": dict(start.call.params),
                "caller": start.call.caller,
                "delay": start.terms.delay / 1000,
            }
            for start in self.records.started
        ]

    def run_started(self) -> list[ActionResult[Any]]:
        """Run what handlers have started, and what that starts, in order and without the delays.

        What waits for a group comes when its runs have ended. What a handler raises is raised here.
        """
        results = []
        while start := self.records.next():
            results.append(self._run(start.action, start.call, start.run_id))
        return results

    @property
    def waiting(self) -> list[dict[str, Any]]:
        """The runs that wait, in order of their time: ``{"runId", "action", "waitingFor",
        "seconds"}``, where `waitingFor` is ``{"kind": "time" or "signal", "name"}``."""
        now = self.records.clock()
        return [
            {
                "runId": run_id,
                "action": memory.action.name,
                "waitingFor": {"kind": memory.wait.kind, "name": memory.wait.name},
                "seconds": max(memory.due() - now, 0) / 1000,
            }
            for run_id, memory in self.records.waiting
            if memory.wait is not None
        ]

    def signal(self, run_id: str, name: str, data: Any = True) -> ActionResult[Any] | None:
        """Send a run a signal. If it waits for that it goes on: its result, or that it waits again;
        else None, and it is kept for later."""
        name, text = signal_name(name), value_text("signal", data)
        memory = self.records.memories.get(run_id)
        if memory is None:
            raise NotFound(f"No run {run_id!r:.80} that waits, or is going on")
        sealed = seal_signal(
            Sealer(self.settings.secret_keys), run_id, memory.action.name, name,
            strict_json.loads(text),
        )  # fmt: skip
        self.records.signal(run_id, name, sealed)
        return self._run(memory.action, memory.call, run_id) if memory.woken else None

    def advance(self, seconds: float = 0.0, *, days: float = 0.0) -> list[ActionResult[Any]]:
        """Let time pass: the runs whose waits are over go on, in order. Their results."""
        until = self.records.clock() + round((seconds + days * 86_400) * 1000)
        results = []
        while waiting := self.records.waiting:
            run_id, memory = waiting[0]
            if memory.due() > until:
                break
            self.records.clock.reach(memory.due())
            results.append(self._run(memory.action, memory.call, run_id))
        self.records.clock.reach(until)
        return results

    def token(self, sub: str = "alice", **claims: Any) -> str:
        """A token for this caller, as a handler sees it in ``ctx.caller_jwt``."""
        return mint_token(sub, _secret(self.settings), claims=claims)

    @property
    def tools(self) -> ActionTools:
        """The tools of a run of the owner: to arrange records, and to look at them."""
        tools: ActionTools = _worker().inline_tools(self.settings, self.store)
        return tools

    @property
    def database(self) -> Database[dict[str, Any]]:
        """The database, past all tools."""
        return self.store.database()


@dataclass(frozen=True, slots=True, kw_only=True)
class InlineStack:
    """What the calls of all tests share."""

    settings: Settings
    registry: Registry
    store: Store
    loop: HandlerLoop
    resources: Any

    @classmethod
    @contextmanager
    def started(
        cls, folder: Path, environment: Mapping[str, str], mongodb_uri: str | None = None
    ) -> Iterator[InlineStack]:
        """Start an embedded database, or take one of the server at ``mongodb_uri``.

        The settings are those of the environment; the database and the secrets are its own. All
        ends with the block.
        """
        own = own_database(mongodb_uri) if mongodb_uri else _embedded_database(folder)
        with own as uri:
            settings = _settings(uri, environment)
            store = Store.of(settings)
            registry, loop = discover(settings.actions), HandlerLoop(settings)
            resources = _worker().inline_resources(loop)
            stack = cls(
                settings=settings, registry=registry, store=store, loop=loop, resources=resources
            )
            try:
                _worker().prepare(store, stack.registry)
                yield stack
            finally:
                resources.close()
                loop.close()
                store.close()

    @contextmanager
    def fresh(self) -> Iterator[InlineCall]:
        """For one test: the database is empty before it, with its indexes."""
        database = self.store.database()
        for name in database.list_collection_names():
            database[name].delete_many({})
        yield InlineCall(
            settings=self.settings,
            registry=self.registry,
            store=self.store,
            loop=self.loop,
            resources=self.resources,
        )


@contextmanager
def _embedded_database(folder: Path) -> Iterator[str]:
    """The MONGODB_URI of a server that ends with the block."""
    data = DataFolder(folder)
    data.create()
    with Supervisor() as supervisor:
        yield start_mongodb(supervisor, data, secrets.token_hex(16)).wait().uri


def _settings(uri: str, environment: Mapping[str, str]) -> Settings:
    given = {
        "REDIS_URL": "redis://127.0.0.1:1/0",  # nothing connects to it
        "MONGODB_URI": uri,
        "SECRET_KEY": secrets.token_hex(32),
        "JWT_SECRET": secrets.token_hex(32),
        "OWNER_USER_ID": environment.get("OWNER_USER_ID") or OWNER,
        "CALLBOARD_PUBLIC_URL": environment.get("CALLBOARD_PUBLIC_URL") or PUBLIC_URL,
    }
    return Settings(**given)  # type: ignore[arg-type]  # by the variables' names


def _secret(settings: Settings) -> str:
    assert settings.jwt_secret is not None  # noqa: S101 - `_settings` gave one
    return settings.jwt_secret.get_secret_value()


def _worker() -> Any:
    """The part of the worker that runs a handler in this process.

    By its name: `callboard` does not import `worker`, except where a test brings them together.
    """
    return importlib.import_module(WORKER)
