"""What a handler is given: the verified caller, its params and the tools."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol

import structlog
from typing_extensions import TypeVar

from callboard.errors import ConfigurationError
from callboard.sdk.request import ActionRequest
from callboard.sdk.timetable import ActionSchedules, AsyncActionSchedules

if TYPE_CHECKING:
    from datetime import datetime

    import httpx
    from pymongo.asynchronous.database import AsyncDatabase
    from pymongo.database import Database

    from callboard.sdk.results import ActionResult
    from callboard.sdk.retry import Retry
    from callboard.types import Created, Deleted, Found, Page, Started, StartedAll, User

__all__ = ["ActionContext", "ActionTools", "AsyncActionContext", "AsyncActionTools"]

S = TypeVar("S", default=Any)  # of ``ctx.state``: ``ctx: ActionContext[Clients]``
T = TypeVar("T")


class ActionTools(Protocol):
    """Reads and writes of records with the application's rights.

    Every method returns an `ActionResult`; none raises for a data error. Collections are
    ``[A-Za-z][A-Za-z0-9_-]{0,63}`` and not ``system*``; record ids are strings of 1..255
    characters. A lost database ends the run as retryable (503), whatever the handler does.
    """

    def create(
        self, coll: str, data: Mapping[str, Any], record_id: str | None = None
    ) -> ActionResult[Created]:
        """Create a record: ``{"recordId"}``.

        With an id it is an upsert: ``data`` is merged on top of an existing record, key by
        key at the top level; fields not passed stay. Without one, a rerun of the same run
        finds the record it made and leaves it as it is.
        """

    def update(self, coll: str, record_id: str, patch: Mapping[str, Any]) -> ActionResult[Created]:
        """Patch an existing record: ``{"recordId"}``; a missing one: ``Record not found``."""

    def remove(self, coll: str, record_id: str) -> ActionResult[Created]:
        """Delete a record: ``{"recordId"}``; a missing one: ``Record not found``."""

    def get(self, coll: str, record_id: str) -> ActionResult[Found]:
        """One record: ``{"record": {"recordId", "data", "createdBy", "createdAt", ...}}``."""

    def query(
        self,
        coll: str,
        where: Mapping[str, Any] | None = None,
        order_by: str | None = None,
        order_dir: Literal["asc", "desc"] = "asc",
        limit: int | None = None,
        after: str | None = None,
    ) -> ActionResult[Page]:
        """Matching records: ``{"records", "count", "after"}``; ``after`` gets the next page."""

    def delete_where(
        self, coll: str, where: Mapping[str, Any], limit: int = 100
    ) -> ActionResult[Deleted]:
        """Delete up to ``limit`` (at most 500) matching records: ``{"deleted"}``."""

    def register_user(
        self,
        user_id: str | None = None,
        name: str | None = None,
        email: str | None = None,
        image_url: str | None = None,
    ) -> ActionResult[User]:
        """Upsert the ``users`` row of ``user_id`` (the caller by default): ``{"user"}``."""

    def integration(
        self, endpoint: str, data: Mapping[str, Any] | None = None
    ) -> ActionResult[Any]:
        """Call a third party, such as ``"openai/chat-completion"``; data is its response body."""

    def transaction(self) -> AbstractContextManager[None]:
        """The writes inside the ``with`` block commit together or not at all."""


class AsyncActionTools(Protocol):
    """`ActionTools`, each call awaited; several may be awaited at once.

    What is awaited within ``transaction()`` happens one after the other: a transaction does one
    thing at a time. It is that of the task that opened it, and of the tasks started within.
    """

    async def create(
        self, coll: str, data: Mapping[str, Any], record_id: str | None = None
    ) -> ActionResult[Created]:
        """Create a record: `ActionTools.create`.

        Creates without an id count in the order in which they are started: where tasks of one
        handler race for that order, pass an id.
        """

    async def update(
        self, coll: str, record_id: str, patch: Mapping[str, Any]
    ) -> ActionResult[Created]:
        """Patch an existing record: `ActionTools.update`."""

    async def remove(self, coll: str, record_id: str) -> ActionResult[Created]:
        """Delete a record: `ActionTools.remove`."""

    async def get(self, coll: str, record_id: str) -> ActionResult[Found]:
        """One record: `ActionTools.get`."""

    async def query(
        self,
        coll: str,
        where: Mapping[str, Any] | None = None,
        order_by: str | None = None,
        order_dir: Literal["asc", "desc"] = "asc",
        limit: int | None = None,
        after: str | None = None,
    ) -> ActionResult[Page]:
        """Matching records: `ActionTools.query`."""

    async def delete_where(
        self, coll: str, where: Mapping[str, Any], limit: int = 100
    ) -> ActionResult[Deleted]:
        """Delete matching records: `ActionTools.delete_where`."""

    async def register_user(
        self,
        user_id: str | None = None,
        name: str | None = None,
        email: str | None = None,
        image_url: str | None = None,
    ) -> ActionResult[User]:
        """Upsert a ``users`` row: `ActionTools.register_user`."""

    async def integration(
        self, endpoint: str, data: Mapping[str, Any] | None = None
    ) -> ActionResult[Any]:
        """Call a third party: `ActionTools.integration`."""

    def transaction(self) -> AbstractAsyncContextManager[None]:
        """The writes inside the ``async with`` block commit together or not at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Context(Generic[S]):
    """What both kinds of handlers see of their run."""

    run_id: str
    action: str
    user_id: str | None  # the verified JWT subject; None for an anonymous caller
    params: Mapping[str, Any]  # the request body, as it came
    env: Mapping[str, str]  # the process environment without Callboard's own secrets
    caller_jwt: str | None = field(
        repr=False
    )  # a live credential: only for `Authorization` headers
    claims: Mapping[str, Any] = field(repr=False)  # the token's verified claims
    attempt: int  # 1 at the first start of the handler; counts retries and reruns
    state: S = field(repr=False)  # what the `hooks.process` of this process has yielded, or None
    #: runs the handler of an action, called as a function, in the transaction that is open
    _joined: Callable[[str, Callable[[], Any]], Any] = field(repr=False)
    #: starts runs for it, keeps its steps, and waits: each made when it is used
    _further: Any = field(repr=False)
    _signal_url: Callable[[str, str], str] = field(repr=False)  # of a run and a name
    _request: ActionRequest | None = field(default=None, repr=False)  # None: the action is not raw

    @property
    def request(self) -> ActionRequest:
        """The request to an action with ``raw=True``: ``.headers`` (lower-case names, without
        ``authorization`` and ``cookie``), ``.body`` (bytes, at most 1 MiB), such as a sender's
        signature is made of, and ``.received_at`` (epoch seconds).

        Empty where no request started the run. Raises `ConfigurationError` in other actions.
        """
        if self._request is None:
            raise ConfigurationError(
                f"Action {self.action!r} has no ctx.request: declare it with @action(raw=True)"
            )
        return self._request

    @property
    def log(self) -> Any:
        """A structlog logger bound with run id, action and caller."""
        return structlog.get_logger("callboard.action").bind(
            run_id=self.run_id, action=self.action, caller=self.user_id
        )

    def step_key(self, name: str) -> str:
        """A key for this step, equal at every attempt: what a third party knows a repeated request
        by. A worker that dies between a step's effect and the keeping of its value does it again.
        """
        key: str = self._further.memory.step_key(name)
        return key

    def signal_url(self, name: str) -> str:
        """A URL under which whoever has it may send this run the signal ``name``, once.

        Without a token: an approval link in a mail, the address that a webhook is sent to. Opened
        in a browser it shows a button. It is a secret: who knows it can use it. Raises
        `InvalidData` for what names no signal, `ConfigurationError` without CALLBOARD_PUBLIC_URL.
        """
        return self._signal_url(self.run_id, name)


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionContext(_Context[S]):
    """One run as its handler sees it."""

    tools: ActionTools
    _database: Callable[[], Database[dict[str, Any]]] = field(repr=False)
    _progress: Callable[[float, str | None], None] = field(repr=False)
    _fetch: Callable[..., httpx.Response] = field(repr=False)

    @property
    def db(self) -> Database[dict[str, Any]]:
        """The application's PyMongo database: the escape hatch for aggregation and bulk work.

        Nothing here is checked, merged or stamped, and it is not part of a transaction.
        """
        return self._database()

    def progress(self, fraction: float, message: str | None = None) -> None:
        """Tell watchers how far the run is: ``fraction`` from 0 to 1 and a short text."""
        self._progress(fraction, message)

    def fetch(self, upstream: str, path: str, **options: Any) -> httpx.Response:
        """Request ``path`` of an upstream named in UPSTREAMS, as the caller.

        The caller's token goes along as ``Authorization: Bearer`` and nowhere else.
        ``options`` are httpx's: ``method`` (default GET), ``params``, ``json``, ``headers``.
        """
        return self._fetch(upstream, path, **options)

    def start(
        self,
        action: str,
        params: Any = None,
        *,
        delay: float | None = None,
        at: datetime | None = None,
        key: str | None = None,
        as_owner: bool = False,
    ) -> ActionResult[Started]:
        """Start a run of another action, now or later: ``{"runId"}``.

        ``delay`` (seconds) or ``at`` (a datetime with its timezone): up to 366 days. Within a
        transaction it is started if and only if the transaction commits; else at once, and a rerun
        of this run starts no second one. ``key``: one run of this caller and action under this key
        for 24 hours, whoever starts it. It has this run's caller; ``as_owner``: the owner. What the
        API would refuse is a failure.
        """
        answer: ActionResult[Started] = self._further.starts.start(
            action, params, {"delay": delay, "at": at, "key": key, "as_owner": as_owner}
        )
        return answer

    @property
    def schedules(self) -> ActionSchedules:
        """Schedules that the application keeps for itself: ``put``, ``remove`` and ``get``."""
        return ActionSchedules(self._further.starts.timetable())

    def start_all(
        self, calls: Sequence[tuple[str, Any]], then: tuple[str, Any] | None = None
    ) -> ActionResult[StartedAll]:
        """Start up to 10,000 runs, each an ``(action, params)``: ``{"runIds", "thenRunId"}``.

        ``then``: one more, that starts once when all have ended, whatever their ends.
        """
        answer: ActionResult[StartedAll] = self._further.starts.start_all(calls, then)
        return answer

    def step(
        self, name: str, function: Callable[..., T], *args: Any, retry: Retry | None = None
    ) -> T:
        """Call ``function(*args)`` once in this run, and keep its value: JSON of up to 1 MiB.

        A rerun of the handler gets the value that was kept, by the step's name, without calling
        the function. What it raises is not kept; ``retry`` calls it again here. Raises
        `InvalidData` for a value that is no JSON, and `ConfigurationError` for two steps of one
        name, or within a transaction. A run keeps 1,000 steps of 16 MiB together.
        """
        value: T = self._further.memory.step(name, function, args, retry)
        return value

    def sleep(
        self, name: str, seconds: float | None = None, *, until: datetime | None = None
    ) -> None:
        """Go on after so many seconds, or at that time (with its timezone): up to 366 days.

        A long sleep ends the attempt, whose process is then free: when it is over, the handler is
        started again and finds its steps and sleeps done. What the handler catches with
        ``except Exception`` is not touched by that, its ``finally`` blocks run.
        """
        self._further.memory.sleep(name, seconds, until)

    def wait_for_signal(self, name: str, timeout: float | None = None) -> Any:
        """What is sent to this run under this name: JSON; None after ``timeout`` seconds.

        It may have been sent before. Without a timeout it waits for 366 days. The attempt ends
        meanwhile as with `sleep`. The first signal of a name counts, for ever.
        """
        return self._further.memory.wait_for_signal(name, timeout)

    def signal(self, run_id: str, name: str, data: Any = True) -> ActionResult[dict[str, Any]]:
        """Send another run a signal, now: ``{"accepted"}``, false if it got one of this name
        before. Without ``data`` it is true: null would look like the end of a timeout. A run that
        has ended, or cannot wait, is a failure."""
        answer: ActionResult[dict[str, Any]] = self._further.memory.signal(run_id, name, data)
        return answer

    def results(self) -> Iterator[dict[str, Any]]:
        """The ends of the runs that this one has waited for, as the ``then`` of a `start_all`.

        In the order in which they were given: ``{"runId", "action", "status", "result"}``, as
        ``GET /api/runs/<id>`` has them. They are read page by page.
        """
        ends: Iterator[dict[str, Any]] = self._further.starts.results()
        return ends


@dataclass(frozen=True, slots=True, kw_only=True)
class AsyncActionContext(_Context[S]):
    """One run as its `async def` handler sees it: what does I/O is awaited."""

    tools: AsyncActionTools
    _database: Callable[[], AsyncDatabase[dict[str, Any]]] = field(repr=False)
    _progress: Callable[[float, str | None], Coroutine[Any, Any, None]] = field(repr=False)
    _fetch: Callable[..., Coroutine[Any, Any, httpx.Response]] = field(repr=False)

    @property
    def db(self) -> AsyncDatabase[dict[str, Any]]:
        """The application's database, as PyMongo's async API has it; else as `ActionContext.db`."""
        return self._database()

    async def progress(self, fraction: float, message: str | None = None) -> None:
        """Tell watchers how far the run is: `ActionContext.progress`."""
        await self._progress(fraction, message)

    async def fetch(self, upstream: str, path: str, **options: Any) -> httpx.Response:
        """Request ``path`` of an upstream named in UPSTREAMS: `ActionContext.fetch`."""
        return await self._fetch(upstream, path, **options)

    async def start(
        self,
        action: str,
        params: Any = None,
        *,
        delay: float | None = None,
        at: datetime | None = None,
        key: str | None = None,
        as_owner: bool = False,
    ) -> ActionResult[Started]:
        """Start a run of another action: `ActionContext.start`."""
        answer: ActionResult[Started] = await self._further.starts.start(
            action, params, {"delay": delay, "at": at, "key": key, "as_owner": as_owner}
        )
        return answer

    @property
    def schedules(self) -> AsyncActionSchedules:
        """Schedules that the application keeps for itself: `ActionContext.schedules`."""
        return AsyncActionSchedules(self._further.starts.timetable())

    async def start_all(
        self, calls: Sequence[tuple[str, Any]], then: tuple[str, Any] | None = None
    ) -> ActionResult[StartedAll]:
        """Start many runs, and one after them: `ActionContext.start_all`."""
        answer: ActionResult[StartedAll] = await self._further.starts.start_all(calls, then)
        return answer

    async def step(
        self, name: str, function: Callable[..., Any], *args: Any, retry: Retry | None = None
    ) -> Any:
        """Call a function, async or plain, once in this run: `ActionContext.step`.

        A plain one that blocks belongs in ``asyncio.to_thread``.
        """
        return await self._further.memory.step(name, function, args, retry)

    async def sleep(
        self, name: str, seconds: float | None = None, *, until: datetime | None = None
    ) -> None:
        """Go on later: `ActionContext.sleep`. Less than CALLBOARD_PARK_AFTER (2 s) is waited for
        here; a longer sleep ends the attempt."""
        await self._further.memory.sleep(name, seconds, until)

    async def wait_for_signal(self, name: str, timeout: float | None = None) -> Any:
        """What is sent to this run: `ActionContext.wait_for_signal`."""
        return await self._further.memory.wait_for_signal(name, timeout)

    async def signal(
        self, run_id: str, name: str, data: Any = True
    ) -> ActionResult[dict[str, Any]]:
        """Send another run a signal: `ActionContext.signal`."""
        answer: ActionResult[dict[str, Any]] = await self._further.memory.signal(run_id, name, data)
        return answer

    def results(self) -> AsyncIterator[dict[str, Any]]:
        """The ends of the runs that this one has waited for: `ActionContext.results`."""
        ends: AsyncIterator[dict[str, Any]] = self._further.starts.results()
        return ends

    async def result(self, run_id: str, timeout: float | None = None) -> ActionResult[Any]:
        """Wait for a run's end: its result. Meanwhile nothing is held but memory.

        Of a run that this one has started, or of the same caller. ``timeout``: seconds, then it is
        a failure; None: as long as this run has time.
        """
        result: ActionResult[Any] = await self._further.starts.result(run_id, timeout)
        return result
