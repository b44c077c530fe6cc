"""`action`: marks a function as callable by clients."""

from __future__ import annotations

import difflib
import inspect
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any, Literal, overload

from callboard.errors import ConfigurationError
from callboard.sdk.context import ActionContext
from callboard.sdk.params import Params
from callboard.sdk.results import ActionResult
from callboard.sdk.retry import Retry

__all__ = ["DEFAULT_QUEUE", "Action", "action"]

DEFAULT_QUEUE = "callboard"
MAX_TIMEOUT = 86_400.0  # seconds: a run must end before its seal expires

Handler = Callable[..., ActionResult[Any]]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """A handler and how it runs."""

    name: str
    handler: Handler
    params: Params | None  # of the handler's second parameter; None: it takes (ctx)
    owner_only: bool
    anonymous: bool  # callable without a token
    transaction: bool
    timeout: float  # seconds, hard
    retry: Retry | None
    queue: str
    on_worker_lost: Literal["rerun", "fail"]
    where: str  # "file:line", for messages

    @property
    def task(self) -> str:
        """The name of its Celery task."""
        return f"actions.{self.name}"

    def validate(self, params: Mapping[str, Any]) -> Any:
        """The params as the handler wants them; raises `InvalidParams` with the issues.

        Each time anew from the JSON that came: the API and the worker see the same.
        """
        return params if self.params is None else self.params.validate(params)

    def __call__(self, *args: Any) -> ActionResult[Any]:
        """The handler itself, so that one action's code can call another's: in the same run.

        Of its options only ``transaction`` counts: it joins the transaction that is open. Raises
        `ConfigurationError` where none is.
        """
        if self.transaction and args and isinstance(args[0], ActionContext):
            return args[0]._joined(self.name, lambda: self.handler(*args))
        return self.handler(*args)

    def run(self, ctx: ActionContext) -> object:
        """Call the handler; what it returns is not checked here."""
        if self.params is None:
            return self.handler(ctx)
        return self.handler(ctx, self.validate(ctx.params))

    def display(self, params: Mapping[str, Any]) -> str:
        """The params as Flower and the logs may show them: names that are declared, no values."""
        if self.params is not None:
            return self.params.display(params)
        return f"{{{len(params)} fields}}" if params else "{}"


@overload
def action(name: Handler, /) -> Action: ...
@overload
def action(
    name: str | None = None,
    *,
    owner_only: bool = False,
    anonymous: bool = False,
    transaction: bool = False,
    timeout: float = 30.0,
    retry: Retry | None = None,
    queue: str | None = None,
    on_worker_lost: Literal["rerun", "fail"] = "rerun",
) -> Callable[[Handler], Action]: ...
def action(name: Any = None, **options: Any) -> Any:
    """Expose a function as an action, by default under its name in lowerCamelCase.

    Used bare or called. ``owner_only``: everyone but ``OWNER_USER_ID`` gets 403.
    ``anonymous``: no token is needed. ``transaction``: the handler's reads and writes are one
    MongoDB transaction, run exactly once. ``timeout`` (seconds): when it ends the handler is
    stopped. ``retry``: see `Retry`. ``queue``: the Celery queue. ``on_worker_lost``: what
    happens when a worker dies during the run: ``"rerun"`` or ``"fail"``.

    Raises `ConfigurationError`, with file and line, for an option or a handler that cannot work.
    """
    _require_known(options, sys._getframe(1))
    if callable(name):
        return _build(name, None, **options)
    return lambda handler: _build(handler, name, **options)


def _require_known(options: Mapping[str, Any], caller: FrameType) -> None:
    """Refuse an option that `action` does not have; ``caller``: the frame that gave it."""
    known = [name for name in inspect.signature(_build).parameters if name != "handler"]
    for option in options:
        if option not in known:
            near = difflib.get_close_matches(option, known, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"It takes {', '.join(known)}."
            raise ConfigurationError(
                f"{caller.f_code.co_filename}:{caller.f_lineno}: "
                f"@action has no option {option!r}. {hint}"
            )


def _build(
    handler: Any,
    name: str | None,
    *,
    owner_only: bool = False,
    anonymous: bool = False,
    transaction: bool = False,
    timeout: float = 30.0,
    retry: Retry | None = None,
    queue: str | None = None,
    on_worker_lost: Literal["rerun", "fail"] = "rerun",
) -> Action:
    where = _where(handler)
    params = _params(handler, where)
    name = _camel_case(handler.__name__) if name is None else name
    queue = DEFAULT_QUEUE if queue is None else queue

    def require(condition: bool, what: str) -> None:
        if not condition:
            raise ConfigurationError(f"{where}: action {name!r}: {what}")

    require(_is_name(name), "a name is a letter, then up to 63 letters, digits, _ or -")
    require(_is_name(queue), f"queue {queue!r} is not a letter, then letters, digits, _ or -")
    flags = {"owner_only": owner_only, "anonymous": anonymous, "transaction": transaction}
    for option, value in flags.items():
        require(isinstance(value, bool), f"{option} must be True or False, not {value!r}")
    require(not (owner_only and anonymous), "owner_only and anonymous exclude each other")
    require(
        isinstance(timeout, int | float)
        and not isinstance(timeout, bool)
        and 0 < timeout <= MAX_TIMEOUT,
        f"timeout must be more than 0 and at most {MAX_TIMEOUT:g} seconds, not {timeout!r}",
    )
    require(retry is None or isinstance(retry, Retry), f"retry must be a Retry, not {retry!r}")
    require(
        on_worker_lost in ("rerun", "fail"),
        f"on_worker_lost must be 'rerun' or 'fail', not {on_worker_lost!r}",
    )
    return Action(
        name=name,
        handler=handler,
        params=params,
        timeout=float(timeout),
        retry=retry,
        queue=queue,
        on_worker_lost=on_worker_lost,
        where=where,
        **flags,
    )


def _is_name(value: object) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def _where(handler: Any) -> str:
    code = getattr(handler, "__code__", None)
    if code is None:
        frame = sys._getframe(3)  # the line that used the decorator
        raise ConfigurationError(
            f"{frame.f_code.co_filename}:{frame.f_lineno}: "
            f"@action takes a function, not {handler!r}"
        )
    return f"{code.co_filename}:{code.co_firstlineno}"


def _params(handler: Any, where: str) -> Params | None:
    """The handler's second parameter; None where it has none."""
    if inspect.iscoroutinefunction(handler) or inspect.isasyncgenfunction(handler):
        raise ConfigurationError(
            f"{where}: {handler.__name__} is `async def`; a handler is a plain function"
        )
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
