"""What handlers pass to starts, checked: each raises `BadRequest`, which names the value."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from callboard.errors import BadRequest
from callboard.numbers import is_number
from callboard.runs.children import MAX_CHILDREN
from callboard.runs.idempotency import MAX_KEY_LENGTH
from callboard.runs.waiting import LONGEST

__all__ = [
    "checked_delay",
    "checked_key",
    "checked_moment",
    "checked_pair",
    "checked_pairs",
    "within",
]

_EARLIEST, _LATEST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


def checked_delay(delay: object) -> float:
    """Seconds."""
    if delay is None:
        return 0.0
    if not is_number(delay):
        raise BadRequest(f"delay: seconds, not {type(delay).__name__}")
    if not delay >= 0:
        raise BadRequest(f"delay: 0 or more seconds, not {delay}")
    return within(delay)


def within(seconds: float) -> float:
    """Seconds from now until a run is due."""
    if seconds > LONGEST:
        raise BadRequest(f"start: at most {LONGEST // 86_400} days ahead")
    return max(seconds, 0.0)


def checked_moment(at: object) -> datetime | None:
    """In UTC."""
    if at is None:
        return None
    if not isinstance(at, datetime) or at.utcoffset() is None:
        raise BadRequest(f"at: a datetime with its timezone, not {at!r:.80}")
    try:
        return at.astimezone(UTC)
    except OverflowError:  # at either end of the calendar: as far ahead, or as long past
        return _LATEST if at.year > 1 else _EARLIEST


def checked_key(key: object) -> str:
    """A key of the handler's choice."""
    if not isinstance(key, str):
        raise BadRequest(f"key: a text, not {type(key).__name__}")
    if not 1 <= len(key) <= MAX_KEY_LENGTH:
        raise BadRequest(f"key: 1..{MAX_KEY_LENGTH} characters, not {len(key)}")
    return key


def checked_pairs(calls: object) -> list[tuple[str, Any]]:
    """The calls of a ``start_all``."""
    if not isinstance(calls, Sequence) or isinstance(calls, str | bytes):
        raise BadRequest(f"start_all: a list of (action, params), not {type(calls).__name__}")
    if len(calls) > MAX_CHILDREN:
        raise BadRequest(f"start_all: at most {MAX_CHILDREN} runs, not {len(calls)}")
    return [checked_pair(call, f"call {number}") for number, call in enumerate(calls)]


def checked_pair(call: object, what: str) -> tuple[str, Any]:
    """An action and its params; ``what``: how a message calls it."""
    if isinstance(call, Sequence) and not isinstance(call, str) and len(call) == 2:
        return call[0], call[1]
    raise BadRequest(f"start_all: {what}: (action, params), not {call!r:.80}")
