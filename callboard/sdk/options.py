"""`Options`: what `@action` takes beside a name, and which of it cannot work."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal

from callboard.numbers import is_number
from callboard.sdk.limit import Limit
from callboard.sdk.retry import Retry

__all__ = ["DEFAULT_QUEUE", "MAX_TIMEOUT", "Options", "is_name"]

DEFAULT_QUEUE = "callboard"
MAX_TIMEOUT = 86_400.0  # seconds: a run must end before its seal expires

_EXCLUDING = (
    ("owner_only", "anonymous", ""),
    ("internal", "anonymous", ": no client calls an internal action"),
    ("raw", "internal", ": no request reaches an internal action"),
)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How an action runs, as its decorator says it; unchecked until `faults` has found none."""

    owner_only: bool = False
    anonymous: bool = False  # callable without a token
    internal: bool = False  # started by runs, schedules and the owner; no client knows it
    raw: bool = False  # takes any content; the handler reads `ctx.request`
    transaction: bool = False
    timeout: float = 30.0  # seconds, hard
    retry: Retry | None = None
    queue: str | None = None  # None: DEFAULT_QUEUE
    on_worker_lost: Literal["rerun", "fail"] = "rerun"
    limit: Limit | None = None  # how many at once, or in how long

    @staticmethod
    def names() -> list[str]:
        """The options' names, in their order."""
        return [field.name for field in fields(Options)]

    def faults(self) -> Iterator[str]:
        """What is wrong with the options, each with the value, as a sentence of a message."""
        if self.queue is not None and not is_name(self.queue):
            yield f"queue {self.queue!r} is not a letter, then letters, digits, _ or -"
        for flag in ("owner_only", "anonymous", "internal", "raw", "transaction"):
            if not isinstance(getattr(self, flag), bool):
                yield f"{flag} must be True or False, not {getattr(self, flag)!r}"
        for one, other, why in _EXCLUDING:
            if getattr(self, one) and getattr(self, other):
                yield f"{one} and {other} exclude each other{why}"
        if not _is_timeout(self.timeout):
            yield (
                f"timeout must be more than 0 and at most {MAX_TIMEOUT:g} seconds, "
                f"not {self.timeout!r}"
            )
        if not (self.retry is None or isinstance(self.retry, Retry)):
            yield f"retry must be a Retry, not {self.retry!r}"
        if not (self.limit is None or isinstance(self.limit, Limit)):
            yield f"limit must be a Limit, not {self.limit!r}"
        if self.on_worker_lost not in ("rerun", "fail"):
            yield f"on_worker_lost must be 'rerun' or 'fail', not {self.on_worker_lost!r}"

    def settled(self) -> dict[str, Any]:
        """Each option as an `Action` holds it."""
        given = {name: getattr(self, name) for name in self.names()}
        queue = DEFAULT_QUEUE if self.queue is None else self.queue
        return {**given, "timeout": float(self.timeout), "queue": queue}


def is_name(value: object) -> bool:
    """Whether an action or a queue can be called this."""
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def _is_timeout(value: object) -> bool:
    return is_number(value) and 0 < value <= MAX_TIMEOUT
