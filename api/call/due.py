"""When a run is to start: ``Run-Delay`` and ``Run-At``, and the same in a JSON body."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from callboard.errors import BadRequest
from callboard.numbers import is_number
from callboard.runs.waiting import LONGEST

__all__ = ["Due", "due_of", "moment_of", "read_due", "seconds_of"]

_DAYS = LONGEST // 86_400
_SECONDS = re.compile(r"[0-9]{1,8}(\.[0-9]{1,9})?")
_LONGEST_TIME = 40  # characters


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """Either so much later, or at a moment."""

    name: str  # what the client calls it
    delay: float = 0.0  # seconds
    at: datetime | None = None

    def seconds(self, clock: Callable[[], datetime]) -> float:
        """How far ahead it is, below 0 where it is past; ``clock`` tells the time in UTC.

        Raises `BadRequest` for more than 366 days.
        """
        seconds = self.delay if self.at is None else (self.at - clock()).total_seconds()
        if seconds > LONGEST:
            raise BadRequest(f"{self.name}: at most {_DAYS} days ahead; send an earlier time")
        return seconds

    def past(self) -> BadRequest:
        """The refusal of a moment that is over."""
        return BadRequest(
            f"{self.name}: {self.at and self.at.isoformat()} is past; send a time to come, or none "
            "to start the run at once"
        )


def read_due(delay: str | None, at: str | None) -> Due:
    """From the headers, one of which is there; raises `BadRequest`."""
    if at is None:
        return Due(name="Run-Delay", delay=_header_seconds(delay or ""))
    if delay is not None:
        raise BadRequest("Run-Delay and Run-At exclude each other: send one of them")
    return Due(name="Run-At", at=moment_of("Run-At", at))


def due_of(delay: object, at: object) -> Due:
    """From a body, None where it has none; raises `BadRequest`."""
    if (delay is None) == (at is None):
        raise BadRequest('Send either {"delay": seconds} or {"at": "<ISO 8601 with offset>"}')
    if at is None:
        return Due(name="delay", delay=seconds_of(delay))
    return Due(name="at", at=moment_of("at", at))


def seconds_of(delay: object) -> float:
    """The ``delay`` of a body; raises `BadRequest`."""
    if not is_number(delay) or not 0 <= delay <= LONGEST:
        raise _no_seconds("delay", delay)
    return float(delay)


def _header_seconds(text: str) -> float:
    if not _SECONDS.fullmatch(text) or float(text) > LONGEST:
        raise _no_seconds("Run-Delay", text)
    return float(text)


def _no_seconds(name: str, value: object) -> BadRequest:
    return BadRequest(
        f"{name} takes seconds from 0 to {LONGEST} ({_DAYS} days), not {_shown(value)}"
    )


def moment_of(name: str, text: object) -> datetime:
    """An ISO 8601 time with its offset, in UTC; raises `BadRequest`."""
    try:
        if not isinstance(text, str) or len(text) > _LONGEST_TIME:
            raise ValueError
        moment = datetime.fromisoformat(text)
        if moment.utcoffset() is None:
            raise ValueError
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadRequest(
            f"{name} takes a time as ISO 8601 with its offset, such as 2026-01-31T09:00:00Z, not "
            f"{_shown(text)}"
        ) from None


def _shown(value: object) -> str:
    """The value, as far as a message tells it; of an object or a list, what it is."""
    if isinstance(value, str):
        return repr(value[:40])
    if isinstance(value, int) and not -(10**15) < value < 10**15:
        return "such a large number"
    return repr(value) if value is None or isinstance(value, int | float) else "a list or an object"
