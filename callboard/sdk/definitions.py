"""Where the functions stand that an application decorates, and whether one replaces another."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, TypeVar

__all__ = ["code_of", "replaced_by"]

T = TypeVar("T")


def code_of(function: Any) -> CodeType | None:
    """The code as the application has written it, not that of a decorator around it; None of what
    is no function."""
    code = getattr(function, "__code__", None)
    return code and getattr(inspect.unwrap(function), "__code__", code)


def replaced_by(function: Any, kind: type[T], decorated: Callable[[T], Any]) -> T | None:
    """What is lost as the module that is being executed defines ``function``: a ``kind`` of the
    same name, from further up. ``decorated``: the function of one.

    A module that is executed once more (`importlib.reload`) replaces what is its own.
    """
    module = _module_of(function)
    before = module and module.f_globals.get(function.__name__)
    if module is None or not isinstance(before, kind):
        return None
    code = code_of(decorated(before))
    return before if any(constant is code for constant in module.f_code.co_consts) else None


def _module_of(function: Any) -> FrameType | None:
    """The module that defines it just now, at its top level."""
    if "." in function.__qualname__:
        return None
    frame: FrameType | None = sys._getframe(1)
    while frame and not (
        frame.f_globals is function.__globals__ and frame.f_code.co_name == "<module>"
    ):
        frame = frame.f_back
    return frame
