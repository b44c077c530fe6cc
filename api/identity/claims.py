"""What a token says: its header and its claims, read strictly, each with its type.

RFC 8725 s. 2.4 and 3.10 ask for it: two parsers that read one token differently are an attack.
So a token whose JSON is ambiguous or extreme is refused as a whole, before its signature is
looked at: a key twice, numbers that are none, half a surrogate pair, nesting without end.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from typing import Any

from callboard.subject import check_subject

__all__ = ["check_types", "read_part"]

MAX_DEPTH = 16  # objects and lists inside each other
_WHOLE = range(-(2**63), 2**63)  # what every JSON reader can hold


def read_part(part: str) -> dict[str, Any]:
    """The object in a token's header or payload, which are base64url; raises ValueError."""
    padded = part + "=" * (-len(part) % 4)
    value = _parse(base64.urlsafe_b64decode(padded).decode())
    if not isinstance(value, dict):
        raise ValueError("a part of the token is no object")
    _check_content(value, MAX_DEPTH)
    return value


def check_types(claims: Mapping[str, Any]) -> None:
    """The claims that mean something here have the types of RFC 7519 s. 4.1.

    Raises ValueError, also where ``sub`` or ``exp`` is missing.
    """
    for name in ("exp", "nbf", "iat"):
        if name in claims and type(claims[name]) not in (int, float):
            raise ValueError(f"{name} is not a number")
    for name in ("sub", "iss", "azp"):
        if name in claims and not isinstance(claims[name], str):
            raise ValueError(f"{name} is not a text")
    audience = claims.get("aud", "")
    if not isinstance(audience, str) and not (
        isinstance(audience, list) and all(isinstance(one, str) for one in audience)
    ):
        raise ValueError("aud is neither a text nor a list of texts")
    if "exp" not in claims:
        raise ValueError("no exp")
    check_subject(claims.get("sub", ""))


def _check_content(value: Any, levels: int) -> None:
    """Text is Unicode, nesting has an end; raises ValueError."""
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, dict | list):
        if not levels:
            raise ValueError("nested too deep")
        for name in value:  # each key, or each item
            _check_content(name, levels - 1)
        for item in value.values() if isinstance(value, dict) else ():
            _check_content(item, levels - 1)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found


def _whole(text: str) -> int:
    if len(text) > 20 or int(text) not in _WHOLE:
        raise ValueError("a whole number of more than 64 bit")
    return int(text)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number beyond all bounds")
    return number


_parse = json.JSONDecoder(
    object_pairs_hook=_once, parse_int=_whole, parse_float=_finite, parse_constant=_finite
).decode
