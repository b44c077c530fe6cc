"""Handlers that do what no handler should."""

import ctypes
import datetime
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from callboard import ActionContext, ActionResult, action, ok


class HostileError(Exception):
    """Cannot be shown, and cannot be pickled."""

    def __init__(self) -> None:
        self.trap: Callable[[], None] = lambda: None

    def __str__(self) -> str:
        raise RuntimeError("no text")


def _recurse(depth: int) -> int:
    return _recurse(depth + 1) + 1


def _nest(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


def _hostile() -> None:
    raise HostileError


def _raise(error: BaseException) -> None:
    raise error


_DEEDS: dict[str, Callable[[], Any]] = {
    "segfault": lambda: ctypes.string_at(0),
    "exit": lambda: os._exit(7),
    "sys_exit": lambda: sys.exit(3),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "recursion": lambda: _recurse(0),
    "memory_bomb": lambda: bytearray(2**36),
    "memory_error": lambda: _raise(MemoryError("canary-exception")),
    "hostile": _hostile,
    "keyboard_interrupt": lambda: _raise(KeyboardInterrupt()),
    "generator_exit": lambda: _raise(GeneratorExit()),
    "exception": lambda: _raise(ValueError("canary-exception")),
}


@action(timeout=20)
def poison(ctx: ActionContext) -> ActionResult:
    """Do ``deed``; with ``once`` only at the first attempt."""
    if ctx.attempt == 1 or not ctx.params.get("once"):
        _DEEDS[ctx.params["deed"]]()
    return ok({"attempt": ctx.attempt})


@action(on_worker_lost="fail")
def poison_without_rerun(ctx: ActionContext) -> ActionResult:
    _DEEDS[ctx.params["deed"]]()
    return ok()


@action
def returns(ctx: ActionContext) -> Any:
    """Return what is no result, or no JSON."""
    kinds: dict[str, Any] = {
        "none": None,
        "dict": {"success": True},
        "object": ok({"at": [object()]}),
        "naive": ok(datetime.datetime(2026, 1, 1)),  # noqa: DTZ001 - that is the point
        "tuple_key": ok({(1, 2): 3}),
        "deep": ok(_nest(950)),
        "nan": ok(float("nan")),
        "large": ok("x" * 64 * 1024 * 1024),
    }
    return kinds[ctx.params["kind"]]


@action(timeout=2)
def loops(ctx: ActionContext) -> ActionResult:
    """Swallows whatever is raised in it."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            while time.monotonic() < until:
                pass
        except BaseException:  # noqa: BLE001, S110 - that is the point
            pass
    return ok()
