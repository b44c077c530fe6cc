"""What handlers pass to steps and waits, checked: each raises `InvalidData`, which names it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from inspect import iscoroutine
from typing import Any

from callboard.errors import InvalidData
from callboard.numbers import is_number
from callboard.runs.kept import value_text
from callboard.runs.waiting import LONGEST
from callboard.sdk.results import ActionResult
from callboard.sdk.retry import Retry

__all__ = [
    "checked_due",
    "checked_function",
    "checked_milliseconds",
    "checked_value",
]

_DAYS = LONGEST // 86_400


def checked_function(what: str, function: object, retry: object) -> None:
    """What a step calls, and when again."""
    if iscoroutine(function):
        function.close()
        raise InvalidData(f"{what}: a coroutine; pass its function, and the arguments behind it")
    if not callable(function):
        kind = type(function).__name__
        raise InvalidData(f"{what}: a function that is to be called, not its value ({kind})")
    if retry is not None and not isinstance(retry, Retry):
        kind = type(retry).__name__
        raise InvalidData(f"{what}: retry is a Retry(max_attempts=...), not {kind}")


def checked_value(what: str, value: Any) -> bytes:
    """The JSON of what a step's function has answered."""
    if iscoroutine(value):  # of a plain handler
        value.close()
        raise InvalidData(f"{what}: its function is async, and the handler is not; declare it so")
    if isinstance(value, ActionResult):
        raise InvalidData(f"{what} returned an ActionResult: return its data, `.unwrap()`")
    return value_text(what, value)


def checked_milliseconds(what: str, seconds: object) -> int:
    """Of a wait of so many seconds."""
    if not is_number(seconds):
        raise InvalidData(f"{what}: seconds, not {type(seconds).__name__}")
    if not 0 <= seconds <= LONGEST:
        raise InvalidData(f"{what}: 0 seconds to {_DAYS} days, not {seconds}")
    return round(seconds * 1000)


def checked_due(what: str, seconds: object, until: object) -> Callable[[int], int]:
    """Until when a wait goes, where it begins at a time (epoch milliseconds)."""
    if (seconds is None) == (until is None):
        raise InvalidData(f"{what}: either seconds or until")
    if until is None:
        most = checked_milliseconds(what, seconds)
        return lambda now: now + most
    if not isinstance(until, datetime) or until.utcoffset() is None:
        raise InvalidData(f"{what}: until is a datetime with its timezone, not {until!r:.80}")
    moment = round(until.timestamp() * 1000)

    def due(now: int) -> int:
        if moment - now > LONGEST * 1000:
            raise InvalidData(f"{what}: at most {_DAYS} days ahead, not {until}")
        return moment

    return due
