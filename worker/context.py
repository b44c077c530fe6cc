"""Builds what a handler is given, for one start of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from callboard import store, strict_json
from callboard.context import ActionContext
from worker.outbound import Outbound
from worker.tools import Tools

if TYPE_CHECKING:
    from worker.execution import Attempt
    from worker.services import Services
    from worker.transaction import Transaction

__all__ = ["build_context"]


def build_context(
    services: Services,
    attempt: Attempt,
    transaction: Transaction | None,
    on_session: Callable[[str], None],
) -> tuple[ActionContext, Tools]:
    """The context of this attempt, and its tools; ``transaction``: the one around the handler."""
    call, run_id, name = attempt.call, attempt.run_id, attempt.action.name
    outbound = Outbound(services, attempt)
    tools = Tools(
        database=store.database,
        run_id=run_id,
        user_id=call.caller,
        integration=outbound.integration,
        deadline=attempt.deadline,
        transaction=transaction,
        on_session=on_session,
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
        _database=store.database,
        _progress=_progress(services, attempt),
        _fetch=outbound.fetch,
    )
    return context, tools


def _progress(services: Services, attempt: Attempt) -> Callable[[float, str | None], None]:
    def progress(fraction: float, message: str | None) -> None:
        if isinstance(fraction, bool) or not isinstance(fraction, int | float):
            raise TypeError(f"progress() takes a fraction from 0 to 1, not {fraction!r}")
        if not math.isfinite(fraction) or not 0 <= fraction <= 1:
            raise ValueError(f"progress() takes a fraction from 0 to 1, not {fraction!r}")
        text = None if message is None else str(message)[:500].encode(errors="replace").decode()
        content = strict_json.dumps({"fraction": float(fraction), "message": text})
        services.runs.note_progress(attempt.run_id, attempt.action.name, attempt.holder, content)

    return progress
