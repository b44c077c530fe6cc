"""What comes of a handler, in a transaction if its action wants one."""

from __future__ import annotations

import decimal
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from callboard.log.printed import end_lines
from callboard.log.run_log import enter
from callboard.runs.outcome import Outcome
from callboard.sans_io import Steps, arun, run
from callboard.sdk.results import StopHandler

from ..hooks.around import stopped_in_a_group
from ..hooks.notifying import Notifier, Why
from ..tools.transaction import Transaction, run_in_transaction, run_in_transaction_async
from .attempt import RunEnded
from .context import AsyncRuns, build_async_context, build_context
from .lifecycle import HandlerStopped

if TYPE_CHECKING:
    from callboard.connections.mongodb import AsyncStore

    from ..services import Services
    from .attempt import Attempt

__all__ = ["outcome_of", "outcome_of_async"]

Build = Callable[[Transaction | None], tuple[Any, Any]]


def outcome_of(services: Services, attempt: Attempt) -> Outcome:
    """What comes of a plain handler.

    Raises what the handler raises, `RunEnded` for what cannot be a result, and
    `ServiceUnavailable`.
    """
    if not services.registry.hooks.listen:
        return _outcome(services, attempt)
    notifying = Notifier(services, attempt, partial(_build_apart, services))
    return run(notifying.outcome(partial(_outcome, services, attempt)))


def _outcome(services: Services, attempt: Attempt) -> Outcome:
    on_session = _note_session(services, attempt)
    build = partial(build_context, services, attempt, on_session)
    if not attempt.action.transaction:
        return run(_once(services, attempt, build))[1]
    result = run_in_transaction(
        database=services.store.database,
        run_id=attempt.run_id,
        action=attempt.action.name,
        deadline=attempt.deadline,
        before_start=on_session,
        body=lambda transaction: run(_once(services, attempt, build, transaction))[0],
    )
    return Outcome.of(result, attempt.run_id)  # perhaps that of an earlier try


async def outcome_of_async(
    services: Services,
    attempt: Attempt,
    runs: AsyncRuns,
    store: AsyncStore,
    why: Why = lambda: None,
) -> Outcome:
    """What comes of an async handler, in a task of its own: `outcome_of`.

    ``runs`` and ``store``: those of the event loop. A task that is canceled stops the handler, as
    asyncio does it; ``why``: says the reason then.
    """
    decimal.setcontext(decimal.getcontext().copy())  # a task has its own variables, but not this
    enter(attempt.log)
    handle = partial(_outcome_async, services, attempt, runs, store)
    try:
        if not services.registry.hooks.listen:
            return await handle()
        build = partial(_build_apart_async, services, runs, store)
        return await arun(Notifier(services, attempt, build, why).outcome(handle))
    except (SystemExit, KeyboardInterrupt) as error:  # from a task they would end the loop
        raise RuntimeError(f"the handler raised {type(error).__name__}") from error
    finally:
        end_lines()


async def _outcome_async(
    services: Services, attempt: Attempt, runs: AsyncRuns, store: AsyncStore
) -> Outcome:
    on_session = _note_session_async(runs, attempt)
    build = partial(build_async_context, services, attempt, on_session, runs, store)
    if not attempt.action.transaction:
        return (await arun(_once(services, attempt, build)))[1]

    async def body(transaction: Transaction) -> Any:
        return (await arun(_once(services, attempt, build, transaction)))[0]

    result = await run_in_transaction_async(
        database=store.database,
        run_id=attempt.run_id,
        action=attempt.action.name,
        deadline=attempt.deadline,
        before_start=on_session,
        body=body,
    )
    return Outcome.of(result, attempt.run_id)


def _once(
    services: Services, attempt: Attempt, build: Build, transaction: Transaction | None = None
) -> Steps[tuple[Any, Outcome]]:
    """Call the handler; its result, and the outcome that this is.

    ``build``: makes its context and tools.
    """
    action = attempt.action
    context, tools = build(transaction)
    try:
        if services.tracing is None:
            result = yield services.call(action, context)
        else:
            with services.tracing.handler(action):
                result = yield services.call(action, context)
    except StopHandler as stop:
        result = stop.result
    except GeneratorExit as error:  # the bodies around this one would take it for their own end
        raise RuntimeError("the handler raised GeneratorExit") from error
    except (Exception, BaseExceptionGroup) as error:
        if tools.lost:
            raise tools.lost from None
        context._further.check()  # a group may hold that the handler waits
        if (stopped := stopped_in_a_group(error)) is None:
            raise
        result = stopped.result
    finally:
        yield tools.end()
    if tools.lost:
        raise tools.lost
    context._further.check()
    outcome = Outcome.of(result, attempt.run_id)
    if outcome.http_status != 200:  # known before a transaction commits
        raise RunEnded(outcome)
    return result, outcome


def _build_apart(services: Services, attempt: Attempt) -> tuple[Any, Any]:
    """A context in no transaction, and its tools, for hooks."""
    return build_context(services, attempt, _note_session(services, attempt), None)


def _build_apart_async(
    services: Services, runs: AsyncRuns, store: AsyncStore, attempt: Attempt
) -> tuple[Any, Any]:
    on_session = _note_session_async(runs, attempt)
    return build_async_context(services, attempt, on_session, runs, store, None)


def _note_session(services: Services, attempt: Attempt) -> Callable[[str], None]:
    """Puts the session of a transaction into the run record, for whoever takes over."""
    return lambda session: _require(
        services.runs.note_session(attempt.run_id, attempt.holder, session)
    )


def _note_session_async(runs: AsyncRuns, attempt: Attempt) -> Callable[[str], Awaitable[None]]:
    async def note(session: str) -> None:
        _require(await runs.note_session(attempt.run_id, attempt.holder, session))

    return note


def _require(held: bool) -> None:
    if not held:
        raise HandlerStopped
