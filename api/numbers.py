"""Numbers as clients write them, in a query or a header."""

from __future__ import annotations

import re

from callboard.errors import BadRequest

__all__ = ["whole_number", "whole_seconds"]

_DIGITS = re.compile(r"[0-9]{1,9}")
_SECONDS = re.compile(r"[0-9]+")
_MOST_SECONDS = 10**9  # 31 years: more is the same to whoever waits


def whole_number(name: str, text: str | None, default: int, most: int) -> int:
    """A number from 1 to ``most``; ``default`` where there is none. Raises `BadRequest`."""
    if text is None:
        return default
    if not _DIGITS.fullmatch(text) or not 1 <= int(text) <= most:
        raise BadRequest(f"{name}: a whole number from 1 to {most}, not {text[:40]!r}")
    return int(text)


def whole_seconds(name: str, text: str) -> int:
    """A number of seconds, 0 or more, as large as one likes; raises `BadRequest`."""
    if not _SECONDS.fullmatch(text):
        raise BadRequest(f"{name} takes whole seconds, not {text[:40]!r}")
    digits = text.lstrip("0") or "0"
    return int(digits) if len(digits) < 10 else _MOST_SECONDS
