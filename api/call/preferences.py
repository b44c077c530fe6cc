"""The ``Prefer`` header (RFC 7240): how long a caller wants to wait."""

from __future__ import annotations

from dataclasses import dataclass

from werkzeug.http import parse_list_header

from callboard.errors import BadRequest

from ..numbers import whole_seconds

__all__ = ["Preferences", "read_preferences"]

MAX_LENGTH = 8192  # characters: a server joins the lines of a repeated header


@dataclass(frozen=True, slots=True, kw_only=True)
class Preferences:
    """What of the header Callboard knows; the rest is ignored (RFC 7240 s. 2)."""

    wait: int | None  # seconds
    respond_async: bool


_NONE = Preferences(wait=None, respond_async=False)


def read_preferences(header: str | None) -> Preferences:
    """Parse the header, in linear time.

    The first of two equal preferences counts (RFC 7240 s. 2). Raises `BadRequest` for a ``wait``
    that is no whole number, and for a header of more than 8,192 characters.
    """
    if header is None:
        return _NONE
    if len(header) > MAX_LENGTH:
        raise BadRequest(f"Prefer takes at most {MAX_LENGTH} characters, not {len(header)}")
    wait: int | None = None
    respond_async = False
    for preference in parse_list_header(header):
        name, _, value = preference.partition(";")[0].partition("=")
        match name.strip().lower():
            case "respond-async":
                respond_async = True
            case "wait" if wait is None:
                wait = whole_seconds("Prefer: wait", value.strip().strip('"'))
    return Preferences(wait=wait, respond_async=respond_async)
