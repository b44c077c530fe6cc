"""Hooks: what an application has done around every handler, and once in each process.

They stand in ``actions/hooks.py``; each may be `def` or `async def`, and is for handlers of both
kinds::

    from callboard import hooks

    @hooks.around
    def timed(ctx, call_next):
        started = time.perf_counter()
        try:
            return call_next()
        finally:
            ctx.log.info("timed", seconds=time.perf_counter() - started)
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from callboard.errors import ConfigurationError
from callboard.sdk.definitions import code_of, replaced_by
from callboard.sdk.results import ActionResult

__all__ = [
    "AsyncCallNext",
    "CallNext",
    "Hook",
    "Hooks",
    "around",
    "on_end",
    "on_error",
    "process",
]

Kind = Literal["process", "around", "on_error", "on_end"]

CallNext: TypeAlias = Callable[..., ActionResult[Any]]
"""What a plain `around` gets: calls the hook behind it, or the handler, with the same context or
with the one that it is given."""

AsyncCallNext: TypeAlias = Callable[..., Awaitable[ActionResult[Any]]]
"""The same for an async one."""

_PARAMETERS: dict[Kind, tuple[str, ...]] = {
    "process": (),
    "around": ("ctx", "call_next"),
    "on_error": ("ctx", "error"),
    "on_end": ("ctx", "result"),
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Hook:
    """One hook; called, it is its function."""

    kind: Kind
    function: Callable[..., Any]
    is_async: bool
    where: str  # "file:line", for messages

    @property
    def name(self) -> str:
        """The function's."""
        return self.function.__name__

    def __call__(self, *args: Any) -> Any:
        """As its module may use it."""
        return self.function(*args)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """Those of an application, each kind in the order of definition."""

    process: tuple[Hook, ...] = ()  # one of each kind of function at most
    around: tuple[Hook, ...] = ()
    on_error: tuple[Hook, ...] = ()
    on_end: tuple[Hook, ...] = ()

    @classmethod
    def of(cls, found: Iterable[Hook]) -> Hooks:
        """Raises `ConfigurationError` for two process hooks of one kind."""
        kinds: dict[Kind, tuple[Hook, ...]] = dict.fromkeys(_PARAMETERS, ())
        for hook in found:
            kinds[hook.kind] += (hook,)
        _require_one_of_a_kind(kinds["process"])
        return cls(**kinds)

    @property
    def listen(self) -> bool:
        """Whether any is told how handlers end."""
        return bool(self.on_error or self.on_end)

    def process_of(self, is_async: bool) -> Hook | None:
        """What a process of plain, or of async, handlers runs: its own kind's, or else the other.

        Both kinds have a use: a client for plain code, and one that is awaited.
        """
        own = (hook for hook in self.process if hook.is_async is is_async)
        return next(own, None) or next(iter(self.process), None)


def process(function: Callable[[], Iterator[Any] | AsyncIterator[Any]], /) -> Hook:
    """Run a generator once in each process that runs handlers: what it yields is ``ctx.state``.

    It begins after the fork, before the first run, and goes on behind its one ``yield`` when the
    process ends. One that raises ends the start of the worker with its reason.
    """
    return _hook("process", function)


def around(function: Callable[[Any, Any], Any], /) -> Hook:
    """Call a function ``(ctx, call_next)`` in each handler's place: the first one is outermost.

    It answers what ``call_next()`` (``await call_next()`` in an async one) has answered, or another
    `ActionResult`. ``call_next(other)`` hands another context on.
    """
    return _hook("around", function)


def on_error(function: Callable[[Any, BaseException], Any], /) -> Hook:
    """Call a function ``(ctx, error)`` for each exception that a handler has raised.

    At each attempt, also before a retry. A handler that ran out of its time: a `TimeoutError` with
    the traceback of where it was stopped.
    """
    return _hook("on_error", function)


def on_end(function: Callable[[Any, ActionResult[Any]], Any], /) -> Hook:
    """Call a function ``(ctx, result)`` when a handler has ended its run, with what the run ends
    with: the handler's result, or the failure that its caller gets.

    Behind the handler's transaction, if it has one. Where a worker dies just then, again.
    """
    return _hook("on_end", function)


def _hook(kind: Kind, function: Any) -> Hook:
    code = code_of(function)
    if code is None:
        frame = sys._getframe(2)  # the line that used the decorator
        raise ConfigurationError(
            f"{frame.f_code.co_filename}:{frame.f_lineno}: "
            f"@hooks.{kind} takes a function, not {function!r:.80}"
        )
    hook = Hook(
        kind=kind,
        function=function,
        is_async=inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function),
        where=f"{code.co_filename}:{code.co_firstlineno}",
    )
    _require_parameters(hook)
    if lost := replaced_by(function, Hook, lambda before: before.function):
        raise ConfigurationError(
            f"{hook.where}: {hook.name} is already defined at {lost.where}, as @hooks.{lost.kind}: "
            f"give one of the functions another name"
        )
    if _yields(function) is not (kind == "process"):
        raise ConfigurationError(f"{hook.where}: {_misplaced_yield(hook)}")
    return hook


def _require_parameters(hook: Hook) -> None:
    signature, wanted = inspect.signature(hook.function), _PARAMETERS[hook.kind]
    parameters = list(signature.parameters.values())
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(parameters) != len(wanted) or len(positional) != len(parameters):
        raise ConfigurationError(
            f"{hook.where}: {hook.name} must take ({', '.join(wanted)}) as @hooks.{hook.kind}, "
            f"not {signature}"
        )


def _yields(function: Any) -> bool:
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


def _misplaced_yield(hook: Hook) -> str:
    if hook.kind == "process":
        return f"@hooks.process takes a generator: let {hook.name} `yield` once, ctx.state or None"
    return f"{hook.name} has a `yield`; only @hooks.process takes a generator"


def _require_one_of_a_kind(hooks: tuple[Hook, ...]) -> None:
    first: dict[bool, Hook] = {}
    for hook in hooks:
        if (known := first.setdefault(hook.is_async, hook)) is not hook:
            kind = "async" if hook.is_async else "plain"
            raise ConfigurationError(
                f"{hook.where}: {hook.name} is the second {kind} @hooks.process after "
                f"{known.where}, and ctx.state is one object: make all in one generator"
            )
