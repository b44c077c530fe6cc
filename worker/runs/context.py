"""Builds what a handler is given, for one start of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from callboard.errors import ConfigurationError
from callboard.sdk.context import ActionContext

from ..tools.tools import Tools
from .outbound import Outbound
from .progress import Progress

if TYPE_CHECKING:
    from ..services import Services
    from ..tools.transaction import Transaction
    from .attempt import Attempt

__all__ = ["build_context"]

P = ParamSpec("P")
T = TypeVar("T")


def build_context(
    services: Services,
    attempt: Attempt,
    transaction: Transaction | None,
    on_session: Callable[[str], None],
) -> tuple[ActionContext, Tools]:
    """The context of this attempt, and its tools; ``transaction``: the one around the handler."""
    call, run_id, name = attempt.call, attempt.run_id, attempt.action.name
    outbound, progress = Outbound(services, attempt), _progress(services, attempt)
    tools = Tools(
        database=services.store.database,
        run_id=run_id,
        user_id=call.caller,
        integration=outbound.integration,
        deadline=attempt.deadline,
        transaction=transaction,
        on_session=on_session,
        on_end=progress.flush,
    )
    context = ActionContext(
        run_id=run_id,
        action=name,
        user_id=call.caller,
        params=dict(call.params),
        tools=tools,
        env=services.handler_env,
        caller_jwt=call.jwt,
        claims=call.claims,
        attempt=attempt.claim.attempt,
        _database=_of_the_run(tools, services.store.database),
        _progress=_of_the_run(tools, progress),
        _fetch=_of_the_run(tools, outbound.fetch),
        _joined=_joined(tools, name),
    )
    return context, tools


def _of_the_run(tools: Tools, function: Callable[P, T]) -> Callable[P, T]:
    """The function, until the run has ended: it acts for its caller and for nobody else."""

    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        if tools.ended:
            raise RuntimeError("This context is that of a run that has ended")
        return function(*args, **kwargs)

    return call


def _joined(tools: Tools, caller: str) -> Callable[[str, Callable[[], Any]], Any]:
    """Runs a handler that wants a transaction, and is called as a function, in the open one."""

    def joined(name: str, handler: Callable[[], Any]) -> Any:
        if not tools.in_transaction:
            raise ConfigurationError(
                f"Action {name!r} has transaction=True, and action {caller!r} calls it as a "
                f"function outside a transaction. Call it within `with ctx.tools.transaction():`, "
                f"give {caller!r} transaction=True, or have it called as a run of its own."
            )
        return tools.join(handler)

    return joined


def _progress(services: Services, attempt: Attempt) -> Progress:
    def write(content: bytes) -> None:
        services.runs.note_progress(attempt.run_id, attempt.action.name, attempt.holder, content)

    return Progress(write, services.progress_pause)
