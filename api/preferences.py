"""The ``Prefer`` header (RFC 7240): how long a caller wants to wait."""

from __future__ import annotations

import re
from dataclasses import dataclass

from callboard.errors import BadRequest

__all__ = ["Preferences", "read_preferences", "whole_seconds"]

_PREFERENCE = re.compile(
    r'\s*([A-Za-z0-9!#$%&\'*+.^_`|~-]+)(?:\s*=\s*("(?:[^"\\]|\\.)*"|[^\s,;"]*))?[^,"]*(?:,|$)'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preferences:
    """What of the header Callboard knows; the rest is ignored (RFC 7240 s. 2)."""

    wait: int | None  # seconds
    respond_async: bool


_NONE = Preferences(wait=None, respond_async=False)


def read_preferences(header: str | None) -> Preferences:
    """Parse the header; raises `BadRequest` for a ``wait`` that is no whole number.

    The first of two equal preferences counts (RFC 7240 s. 2).
    """
    if header is None:
        return _NONE
    wait: int | None = None
    respond_async = False
    for name, value in _PREFERENCE.findall(header):
        if name.lower() == "respond-async":
            respond_async = True
        if name.lower() == "wait" and wait is None:
            wait = whole_seconds("Prefer: wait", value.strip('"'))
    return Preferences(wait=wait, respond_async=respond_async)


def whole_seconds(name: str, value: str) -> int:
    """A number of seconds as a client writes it; raises `BadRequest`."""
    if not re.fullmatch(r"[0-9]{1,9}", value):
        raise BadRequest(f"{name} takes whole seconds, not {value[:40]!r}")
    return int(value)
