"""Builds what a handler is given, for one start of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar

from callboard.errors import ConfigurationError
from callboard.sdk.context import ActionContext, AsyncActionContext
from callboard.sdk.request import ActionRequest

from ..tools.tools import AsyncTools, Tools
from .memory import AsyncMemory, Memory
from .outbound import AsyncOutbound, Outbound
from .progress import AsyncProgress, Progress
from .reach import Broker, Reach
from .starts import AsyncStarts, Starts

if TYPE_CHECKING:
    from callboard.connections.mongodb import AsyncStore

    from ..services import Services
    from ..tools.transaction import Transaction
    from .attempt import Attempt

__all__ = ["AsyncRuns", "build_async_context", "build_context"]

P = ParamSpec("P")
T = TypeVar("T")


class AsyncRuns(Broker, Protocol):
    """What an async handler's context does with the run records: `callboard.runs.store.Runs`."""

    async def note_session(self, run_id: str, holder: str, session: str) -> bool:
        """Remember the MongoDB session of a transaction, before it starts."""

    async def note_progress(self, run_id: str, action: str, holder: str, progress: bytes) -> bool:
        """Remember how far the run is, and tell those who watch."""


def build_context(
    services: Services,
    attempt: Attempt,
    on_session: Callable[[str], None],
    transaction: Transaction | None,
) -> tuple[ActionContext, Tools]:
    """The context of this attempt, and its tools; ``transaction``: the one around the handler."""
    outbound, progress = Outbound(services, attempt), _progress(services, attempt)
    database = services.store.database
    tools = Tools(**_of_tools(attempt, database, outbound, progress, on_session, transaction))
    facts = _facts(services, attempt, tools, database, outbound, progress)
    further = _Further(services, attempt, tools)
    return ActionContext(**facts, tools=tools, _further=further), tools


def build_async_context(
    services: Services,
    attempt: Attempt,
    on_session: Callable[[str], Awaitable[None]],
    runs: AsyncRuns,
    store: AsyncStore,
    transaction: Transaction | None,
) -> tuple[AsyncActionContext, AsyncTools]:
    """`build_context`; ``runs`` and ``store``: those of the event loop."""
    outbound, progress = AsyncOutbound(services, attempt), _async_progress(services, attempt, runs)
    database = store.database
    tools = AsyncTools(**_of_tools(attempt, database, outbound, progress, on_session, transaction))
    facts = _facts(services, attempt, tools, database, outbound, progress)
    further = _AsyncFurther(services, attempt, tools, runs, store)
    return AsyncActionContext(**facts, tools=tools, _further=further), tools


class _Further:
    """What a handler starts runs with, and remembers with: made when it does, which most do not."""

    _starts: Callable[..., Any] = Starts
    _memory: Callable[..., Any] = Memory

    def __init__(self, services: Services, attempt: Attempt, tools: Any, *loops: Any) -> None:
        """``loops``: the run records and the store of an event loop."""
        self._made_with = services, attempt, tools, loops

    @cached_property
    def _parts(self) -> tuple[Reach, Attempt, Any]:
        services, attempt, tools, loops = self._made_with
        return Reach(services, *loops), attempt, tools

    @cached_property
    def starts(self) -> Any:
        """Starts runs."""
        return type(self)._starts(*self._parts)

    @cached_property
    def memory(self) -> Any:
        """Keeps steps, and waits."""
        return type(self)._memory(*self._parts)

    def check(self) -> None:
        """Raise `Parked` if the handler waits, whatever it has made of that."""
        if "memory" in self.__dict__:
            self.memory.check()


class _AsyncFurther(_Further):
    _starts = AsyncStarts
    _memory = AsyncMemory


def _of_tools(
    attempt: Attempt,
    database: Callable[[], Any],
    outbound: Outbound | AsyncOutbound,
    progress: Progress | AsyncProgress,
    on_session: Callable[[str], Any],
    transaction: Transaction | None,
) -> dict[str, Any]:
    """What both kinds of tools are made with."""
    return {
        "database": database,
        "run_id": attempt.ids,
        "user_id": attempt.call.caller,
        "integration": outbound.integration,
        "deadline": attempt.deadline,
        "transaction": transaction,
        "on_session": on_session,
        "on_end": progress.flush,
    }


def _facts(
    services: Services,
    attempt: Attempt,
    tools: Tools | AsyncTools,
    database: Callable[[], Any],
    outbound: Outbound | AsyncOutbound,
    progress: Progress | AsyncProgress,
) -> dict[str, Any]:
    """The fields that both kinds of contexts have."""
    call = attempt.call
    return {
        "run_id": attempt.run_id,
        "action": attempt.action.name,
        "user_id": call.caller,
        "params": dict(call.params),
        "env": services.handler_env,
        "caller_jwt": call.jwt,
        "claims": call.claims,
        "attempt": attempt.claim.attempt,
        "state": services.state,
        "_signal_url": services.signal_urls.url,
        "_request": (call.request or ActionRequest()) if attempt.action.raw else None,
        "_joined": _joined(tools, attempt.action.name),
        "_database": _of_the_run(tools, database),
        "_progress": _of_the_run(tools, progress),
        "_fetch": _of_the_run(tools, outbound.fetch),
    }


def _of_the_run(tools: Tools | AsyncTools, function: Callable[P, T]) -> Callable[P, T]:
    """The function, until the run has ended: it acts for its caller and for nobody else."""

    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        if tools.ended:
            raise RuntimeError("This context is that of a run that has ended")
        return function(*args, **kwargs)

    return call


def _joined(tools: Tools | AsyncTools, caller: str) -> Callable[[str, Callable[[], Any]], Any]:
    """Runs a handler that wants a transaction, and is called as a function, in the open one."""

    def joined(name: str, handler: Callable[[], Any]) -> Any:
        if not tools.in_transaction:
            with_ = "async with" if isinstance(tools, AsyncTools) else "with"
            raise ConfigurationError(
                f"Action {name!r} has transaction=True, and action {caller!r} calls it as a "
                f"function outside a transaction. Call it within "
                f"`{with_} ctx.tools.transaction():`, give {caller!r} transaction=True, or have it "
                f"called as a run of its own."
            )
        return tools.join(handler)

    return joined


def _progress(services: Services, attempt: Attempt) -> Progress:
    def write(content: bytes) -> None:
        services.runs.note_progress(attempt.run_id, attempt.action.name, attempt.holder, content)

    return Progress(write, services.progress_pause)


def _async_progress(services: Services, attempt: Attempt, runs: AsyncRuns) -> AsyncProgress:
    def write(content: bytes) -> Awaitable[bool]:
        return runs.note_progress(attempt.run_id, attempt.action.name, attempt.holder, content)

    return AsyncProgress(write, services.progress_pause)
