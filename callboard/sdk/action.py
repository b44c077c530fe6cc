"""`action`: marks a function as callable by clients."""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any, Generic, Literal, Protocol, overload

from typing_extensions import TypeVar

from callboard.errors import ConfigurationError
from callboard.sdk.context import ActionContext, AsyncActionContext
from callboard.sdk.definitions import code_of, replaced_by
from callboard.sdk.fails import declared_codes
from callboard.sdk.limit import Limit
from callboard.sdk.options import Options, is_name
from callboard.sdk.params import Params, annotated_with
from callboard.sdk.results import ActionResult
from callboard.sdk.retry import Retry

__all__ = ["Action", "action"]

Awaited = Coroutine[Any, Any, ActionResult[Any]]
Handler = Callable[..., ActionResult[Any]]
AsyncHandler = Callable[..., Awaited]
R_co = TypeVar("R_co", covariant=True, default=ActionResult[Any])

ASYNC_SUFFIX = ".async"  # no declared queue has a dot in its name


@dataclass(frozen=True, slots=True, kw_only=True)
class Action(Options, Generic[R_co]):
    """A handler and how it runs."""

    name: str
    handler: Callable[..., R_co]
    is_async: bool  # the handler is `async def`: a coroutine of the result comes back
    params: Params | None  # of the handler's second parameter; None: it takes (ctx)
    queue: str  # as declared
    where: str  # "file:line", for messages

    def check(self) -> None:
        """Raise `ConfigurationError` for an annotation, or a list of codes, that cannot be used."""
        try:
            declared_codes(self.handler)
        except ConfigurationError as error:
            raise ConfigurationError(f"{self.where}: {self.handler.__name__}: {error}") from None
        if self.params is not None:
            self.params.check()
        contexts: list[type] = [ActionContext, AsyncActionContext]
        wanted, other = reversed(contexts) if self.is_async else contexts
        if annotated_with(self.handler, other):
            raise ConfigurationError(
                f"{self.where}: {self.handler.__name__} is {_kind(self.is_async)} and gets an "
                f"{wanted.__name__}; its first parameter is annotated with {other.__name__}"
            )

    @property
    def task(self) -> str:
        """The name of its Celery task."""
        return f"actions.{self.name}"

    @property
    def message_queue(self) -> str:
        """The queue of its wake-ups: plain and async runs never wait behind each other."""
        return self.queue + ASYNC_SUFFIX if self.is_async else self.queue

    def validate(self, params: Mapping[str, Any]) -> Any:
        """The params as the handler wants them; raises `InvalidParams` with the issues.

        Each time anew from the JSON that came: the API and the worker see the same.
        """
        return params if self.params is None else self.params.validate(params)

    def __call__(self, *args: Any) -> R_co:
        """The handler itself, so that one action's code can call another's: in the same run.

        Of its options only ``transaction`` counts: it joins the transaction that is open. Raises
        `ConfigurationError` where none is, and for a context of the other kind of handler.
        """
        if not args or not isinstance(args[0], ActionContext | AsyncActionContext):
            return self.handler(*args)
        if isinstance(args[0], AsyncActionContext) is not self.is_async:
            raise ConfigurationError(
                f"{self.where}: action {self.name!r} is {_kind(self.is_async)}, and a handler of "
                f"the other kind calls it as a function. Let both be of one kind, or have it "
                f"called as a run of its own."
            )
        if self.transaction:
            joined: R_co = args[0]._joined(self.name, lambda: self.handler(*args))
            return joined
        return self.handler(*args)

    def run(self, ctx: ActionContext | AsyncActionContext) -> object:
        """Call the handler; what it returns is not checked here. Of an async one: a coroutine."""
        if self.params is None:
            return self.handler(ctx)
        return self.handler(ctx, self.validate(ctx.params))

    def display(self, params: Mapping[str, Any]) -> str:
        """The params as Flower and the logs may show them: names that are declared, no values."""
        if self.params is not None:
            return self.params.display(params)
        return f"{{{len(params)} fields}}" if params else "{}"


class Decorator(Protocol):
    """`action` with its options given."""

    @overload
    def __call__(self, handler: AsyncHandler, /) -> Action[Awaited]: ...
    @overload
    def __call__(self, handler: Handler, /) -> Action: ...


@overload
def action(name: AsyncHandler, /) -> Action[Awaited]: ...
@overload
def action(name: Handler, /) -> Action: ...
@overload
def action(
    name: str | None = None,
    *,
    owner_only: bool = False,
    anonymous: bool = False,
    internal: bool = False,
    raw: bool = False,
    transaction: bool = False,
    timeout: float = 30.0,
    retry: Retry | None = None,
    queue: str | None = None,
    on_worker_lost: Literal["rerun", "fail"] = "rerun",
    limit: Limit | None = None,
) -> Decorator: ...
def action(name: Any = None, **options: Any) -> Any:
    """Expose a function, `def` or `async def`, as an action, by default under its name in
    lowerCamelCase.

    Used bare or called. ``owner_only``: everyone but ``OWNER_USER_ID`` gets 403.
    ``anonymous``: no token is needed. ``internal``: for clients it does not exist; runs, schedules
    and the application's own programs start it. ``raw``: it takes any content type, and the handler
    reads ``ctx.request``. ``transaction``: the handler's reads and writes
    are one MongoDB transaction, run exactly once. ``timeout`` (seconds): when it ends the handler
    is stopped. ``retry``: see `Retry`. ``queue``: the Celery queue. ``on_worker_lost``: what
    happens when a worker dies during the run: ``"rerun"`` or ``"fail"``. ``limit``: how many of its
    runs execute at once, or start in how long, see `Limit`.

    Raises `ConfigurationError`, with file and line, for an option or a handler that cannot work.
    """
    _require_known(options, sys._getframe(1))
    given = Options(**options)
    if callable(name):
        return _build(name, None, given)
    return lambda handler: _build(handler, name, given)


def _require_known(options: Mapping[str, Any], caller: FrameType) -> None:
    """Refuse an option that `action` does not have; ``caller``: the frame that gave it."""
    known = ["name", *Options.names()]
    for option in options:
        if option not in known:
            near = difflib.get_close_matches(option, known, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"It takes {', '.join(known)}."
            raise ConfigurationError(
                f"{caller.f_code.co_filename}:{caller.f_lineno}: "
                f"@action has no option {option!r}. {hint}"
            )


def _build(handler: Any, name: str | None, options: Options) -> Action[Any]:
    where = _where(handler)
    is_async = _is_async(handler, where)
    params = _params(handler, where)
    if options.raw is True and params is not None:
        raise ConfigurationError(
            f"{where}: {handler.__name__} must take (ctx) alone: with raw=True the body is "
            f"ctx.request.body, and nothing validates it"
        )
    name = _camel_case(handler.__name__) if name is None else name
    if lost := replaced_by(handler, Action, lambda before: before.handler):
        raise ConfigurationError(
            f"{where}: {handler.__name__} is already defined at {lost.where}, as action "
            f"{lost.name!r}: give one of the functions another name"
        )
    for fault in _faults(name, options):
        raise ConfigurationError(f"{where}: action {name!r}: {fault}")
    return Action(
        name=name, handler=handler, is_async=is_async, params=params, where=where,
        **options.settled(),
    )  # fmt: skip


def _faults(name: str, options: Options) -> Iterator[str]:
    if not is_name(name):
        yield "a name is a letter, then up to 63 letters, digits, _ or -"
    yield from options.faults()


def _where(handler: Any) -> str:
    code = code_of(handler)
    if code is None:
        frame = sys._getframe(3)  # the line that used the decorator
        raise ConfigurationError(
            f"{frame.f_code.co_filename}:{frame.f_lineno}: "
            f"@action takes a function, not {handler!r}"
        )
    return f"{code.co_filename}:{code.co_firstlineno}"


def _kind(is_async: bool) -> str:
    return "`async def`" if is_async else "a plain `def`"


def _is_async(handler: Any, where: str) -> bool:
    """Whether it is `async def`; what yields is no handler of either kind."""
    if inspect.isgeneratorfunction(handler) or inspect.isasyncgenfunction(handler):
        raise ConfigurationError(
            f"{where}: {handler.__name__} has a `yield`, so a call of it answers a generator; "
            f"a handler returns its ActionResult"
        )
    return inspect.iscoroutinefunction(handler)


def _params(handler: Any, where: str) -> Params | None:
    """The handler's second parameter; None where it has none."""
    parameters = list(inspect.signature(handler).parameters.values())
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(positional) != len(parameters) or len(positional) not in (1, 2):
        raise ConfigurationError(
            f"{where}: {handler.__name__} must take (ctx) or (ctx, params), "
            f"not {inspect.signature(handler)}"
        )
    return Params(handler, positional[1].name, where) if len(positional) == 2 else None


def _camel_case(name: str) -> str:
    """``invite_attendee`` -> ``inviteAttendee``."""
    first, *rest = [part for part in name.split("_") if part] or [name]
    return first[:1].lower() + first[1:] + "".join(part[:1].upper() + part[1:] for part in rest)
