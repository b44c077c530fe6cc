"""Numbers as clients write them, in a query or a header."""

from __future__ import annotations

import re

from callboard.errors import BadRequest

__all__ = ["whole_number", "whole_seconds"]

_DIGITS = re.compile(r"[0-9]{1,9}")


def whole_number(name: str, text: str | None, default: int, most: int) -> int:
    """A number from 1 to ``most``; ``default`` where there is none. Raises `BadRequest`."""
    if text is None:
        return default
    if not _DIGITS.fullmatch(text) or not 1 <= int(text) <= most:
        raise BadRequest(f"{name}: a whole number from 1 to {most}, not {text[:40]!r}")
    return int(text)


def whole_seconds(name: str, text: str) -> int:
    """A number of seconds, 0 or more; raises `BadRequest`."""
    if not _DIGITS.fullmatch(text):
        raise BadRequest(f"{name} takes whole seconds, not {text[:40]!r}")
    return int(text)
