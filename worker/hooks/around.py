"""Around: calls a handler through the hooks that the application has around it.

A hook and a handler may each be plain or async. What a plain one calls answers, what an async one
calls is awaited; where the two kinds meet stands `worker.hooks.hook_loop` (async hook, plain
handler) or `worker.hooks.bridge` (plain hook, async handler).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from types import CoroutineType
from typing import Any

from callboard.sdk.action import Action
from callboard.sdk.hooks import Hook
from callboard.sdk.results import ActionResult, StopHandler

from .bridge import call_beside
from .hook_loop import HookLoop

__all__ = ["Around", "stopped_in_a_group"]

Next = Callable[[Any], Any]  # of a context: what is behind a hook
AsyncNext = Callable[[Any], Awaitable[Any]]


class Around:
    """The hooks around every handler, the first outermost. ``hook_loop``: where async ones run in a
    process of plain handlers."""

    def __init__(self, hooks: Sequence[Hook], hook_loop: Callable[[], HookLoop]) -> None:
        self._hooks = hooks[::-1]
        self._hook_loop = hook_loop

    def call(self, action: Action[Any], ctx: Any) -> Any:
        """As `Action.run`."""
        if action.is_async:
            return self._async(action, ctx)
        inner: Next = partial(_handle, action)
        for hook in self._hooks:
            inner = partial(self._link, hook, inner)
        return inner(ctx)

    def _async(self, action: Action[Any], ctx: Any) -> Awaitable[Any]:
        inner: AsyncNext = partial(_handle_async, action)
        for hook in self._hooks:
            inner = partial(_link_async, hook, inner)
        return inner(ctx)

    def _link(self, hook: Hook, inner: Next, ctx: Any) -> Any:
        behind = _Behind(inner)
        if hook.is_async:
            result = self._hook_loop().around(hook.function, ctx, behind)
        else:
            result = hook.function(ctx, partial(_call, behind, ctx))
        return behind.checked(hook, result)


async def _link_async(hook: Hook, inner: AsyncNext, ctx: Any) -> Any:
    behind = _AsyncBehind(inner)
    if hook.is_async:
        result = await hook.function(ctx, partial(_call, behind, ctx))
    else:
        result = await call_beside(hook.function, ctx, behind)
    return behind.checked(hook, result)


def _call(behind: Callable[[Any], Any], ctx: Any, other: Any = None) -> Any:
    """What a hook calls as ``call_next``."""
    return behind(ctx if other is None else other)


class _Behind:
    """What is behind one hook, and what that has answered."""

    def __init__(self, inner: Next) -> None:
        self._inner = inner
        self._answered: Any = self  # nothing yet

    def __call__(self, ctx: Any) -> Any:
        self._answered = self._inner(ctx)
        return self._answered

    def checked(self, hook: Hook, result: Any) -> Any:
        """The hook's answer. What is wrong with that of a handler is told elsewhere."""
        if isinstance(result, ActionResult) or result is self._answered:
            return result
        said = f"a {type(result).__name__}"
        if isinstance(result, CoroutineType):
            result.close()  # else Python warns that nobody awaited it
        raise TypeError(
            f"{hook.where}: @hooks.around {hook.name!r} answered {said}; let it return what "
            f"`{'await ' if hook.is_async else ''}call_next()` answers"
        )


class _AsyncBehind(_Behind):
    async def __call__(self, ctx: Any) -> Any:
        self._answered = await self._inner(ctx)
        return self._answered


def _handle(action: Action[Any], ctx: Any) -> Any:
    """The handler; where it was stopped by `unwrap`, hooks see the result that this is."""
    try:
        return action.run(ctx)
    except StopHandler as stop:
        return stop.result


async def _handle_async(action: Action[Any], ctx: Any) -> Any:
    try:
        return await action.run(ctx)  # type: ignore[misc]  # of an async handler: a coroutine
    except StopHandler as stop:
        return stop.result
    except ExceptionGroup as group:
        if (stop_in_it := stopped_in_a_group(group)) is None:
            raise
        return stop_in_it.result


def stopped_in_a_group(error: BaseException) -> StopHandler | None:
    """The first `unwrap` of several tasks of one group, if nothing else is wrong in it."""
    if not isinstance(error, ExceptionGroup):
        return None
    stops, others = error.split(StopHandler)
    while others is None and isinstance(stops, ExceptionGroup):
        stops = stops.exceptions[0]  # type: ignore[assignment]  # a group may hold groups
    return stops if isinstance(stops, StopHandler) else None
