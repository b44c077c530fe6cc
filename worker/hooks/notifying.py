"""Notifying: what comes of a handler, and the hooks that hear of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

import structlog

from callboard.errors import ServiceUnavailable
from callboard.runs.outcome import Outcome
from callboard.sans_io import Steps
from callboard.sdk.context import AsyncActionContext
from callboard.sdk.hooks import Hook
from callboard.sdk.results import ActionResult

from ..runs.attempt import Attempt, Parked, RunEnded
from ..runs.lifecycle import HOOK_SECONDS, HandedBack, HandlerStopped, TimedOut

if TYPE_CHECKING:
    from ..services import Services

__all__ = ["Notifier", "Why"]

STOPS = (HandlerStopped, HandedBack)
NOT_RAISED = (*STOPS, Parked, GeneratorExit)  # by the handler
Why = Callable[[], type[BaseException] | None]

_log = structlog.get_logger("callboard.worker")


class Notifier:
    """Of one attempt. ``build``: makes a context and its tools, in no transaction; ``why``: the
    reason for which an async handler was canceled, None if it has canceled itself."""

    def __init__(
        self,
        services: Services,
        attempt: Attempt,
        build: Callable[[Attempt], tuple[Any, Any]],
        why: Why = lambda: None,
    ) -> None:
        self._services = services
        self._hooks = services.registry.hooks
        self._attempt = attempt
        self._build = build
        self._why = why
        self._until = attempt.deadline  # time.monotonic seconds: of what hooks may take

    def outcome(self, handle: Callable[[], Any]) -> Steps[Outcome]:
        """The outcome of ``handle``, or what it raises: in the end it is as without hooks, unless
        one raises that is told of a success."""
        try:
            outcome: Outcome = yield handle()
        except RunEnded as end:
            yield from self._quietly(self._ended(end.outcome))
            raise
        except (ServiceUnavailable, *NOT_RAISED):
            raise
        except BaseException as raised:
            if self._why() not in STOPS:
                yield from self._raised(raised)
            raise
        try:
            yield from self._ended(outcome)
        except Exception as error:
            yield from self._quietly(self._notify(self._hooks.on_error, error, "error"))
            raise
        return outcome

    def _raised(self, raised: BaseException) -> Steps[None]:
        """The handler has raised this, or was stopped so at the end of its time."""
        attempt, run_id = self._attempt, self._attempt.run_id
        error, outcome = raised, Outcome.failed("Action failed", run_id)
        if isinstance(raised, TimedOut) or self._why() is TimedOut:
            self._until = time.monotonic() + HOOK_SECONDS
            outcome = Outcome.timed_out(attempt.action.timeout, run_id)
            error = TimeoutError(outcome.error).with_traceback(raised.__traceback__)
        of_attempt = f"error {attempt.claim.attempt}"
        yield from self._quietly(self._notify(self._hooks.on_error, error, of_attempt))
        if error is not raised or not attempt.retries(raised):
            yield from self._quietly(self._ended(outcome))

    def _ended(self, outcome: Outcome) -> Steps[None]:
        if self._hooks.on_end:
            yield from self._notify(self._hooks.on_end, outcome.result(), "end")

    def _notify(self, hooks: Sequence[Hook], what: object, scope: str) -> Steps[None]:
        """Call the hooks, with a context of their own: what they create and start is not taken for
        what the handler does."""
        if not hooks:
            return
        context, tools = self._build(self._attempt.apart(scope, self._until))
        try:
            for hook in hooks:
                answer = yield self._called(hook, context, what)
                if isinstance(answer, ActionResult) and not answer.success:
                    failure = f"@hooks.{hook.kind} {hook.name!r} answered a failure: {answer.error}"
                    raise RuntimeError(f"{hook.where}: {failure}")
        finally:
            yield tools.end()
        if tools.lost:
            raise tools.lost

    def _called(self, hook: Hook, context: Any, what: object) -> Any:
        """What an async handler's hooks answer is awaited, if it can be."""
        if not isinstance(context, AsyncActionContext):
            answer = hook.function(context, what)
            return self._services.hook_loop.run(answer) if hook.is_async else answer
        answer = hook.function(context, what)
        late = self._why() is not None and isawaitable(answer)
        return asyncio.wait_for(answer, self._until - time.monotonic()) if late else answer

    def _quietly(self, notifying: Steps[None]) -> Steps[None]:
        """What a hook raises here is logged: the run fails already, and for another reason."""
        try:
            yield from notifying
        except Exception as error:  # noqa: BLE001 - an application's own code
            names = {"run_id": self._attempt.run_id, "action": self._attempt.action.name}
            _log.error("a hook raised", **names, exc_info=error)
