"""Values: what a record can hold, on the way in and on the way out.

A record holds JSON and nothing else, so a value that was read can be written back unchanged,
and compares with what a client sent. Python values that JSON lacks are stored as text: an
aware datetime as ISO 8601 in UTC (which sorts by time), a UUID in its canonical form, a
Decimal with all its digits. What has no honest text form is refused, naming the field.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from callboard.errors import InvalidData
from callboard.sdk.names import data_key
from callboard.times import iso

__all__ = ["now", "read", "stored", "stored_data", "stored_scalar", "stored_time"]

MAX_DEPTH = 64  # objects and lists inside each other; MongoDB ends at 100
_CONTAINERS = (dict, list, tuple, Mapping)
_AS_IS = {str, int, bool, type(None)}
INT64 = -(2**63), 2**63 - 1


def now() -> datetime:
    """This moment in UTC, to the millisecond, as MongoDB keeps it."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def stored_data(value: object, what: str = "data") -> dict[str, Any]:
    """A record's data, or a patch (``what``), as it is stored; raises `InvalidData`."""
    if not isinstance(value, Mapping):
        raise InvalidData(f"{what}: must be an object, not {type(value).__name__}")
    data: dict[str, Any] = stored(value, what)
    return data


def stored(value: object, path: str, depth: int = 0) -> Any:
    """Any value as it is stored; ``path`` names it in the text of `InvalidData`."""
    if not isinstance(value, _CONTAINERS):
        return stored_scalar(value, path)
    if depth >= MAX_DEPTH:
        raise InvalidData(f"{path:.200}: nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, Mapping):
        return {
            data_key(key, path): stored(item, f"{path}.{key}", depth + 1)
            for key, item in value.items()
        }
    return [stored(item, f"{path}.{index}", depth + 1) for index, item in enumerate(value)]


def stored_scalar(value: object, path: str) -> Any:
    """A single value as it is stored: None, bool, int, float or text."""
    if value is None or isinstance(value, bool):
        return value
    for kind, convert in _CONVERTERS:
        if isinstance(value, kind):
            return convert(value, path)
    raise InvalidData(f"{path}: a {type(value).__name__} is not JSON; convert it first")


def stored_time(value: object, path: str) -> datetime | None:
    """A time of the envelope to compare with: an aware datetime or its ISO 8601 text."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise InvalidData(f"{path}: {value!r:.80} is not an ISO 8601 time") from None
    if value is None:
        return None
    if not isinstance(value, datetime):
        raise InvalidData(
            f"{path}: must be an aware datetime or ISO 8601 text, not {type(value).__name__}"
        )
    return datetime.fromisoformat(_time_text(value, path))


def read(value: Any) -> Any:
    """A stored value as JSON.

    What the tools wrote comes back as it is. The rest is for data that came in through
    ``ctx.db``: dates become ISO 8601, binary becomes base64, NaN becomes null, and any other
    BSON type its text.
    """
    if type(value) in _AS_IS:
        return value
    if isinstance(value, dict):
        return {key: read(item) for key, item in value.items()}
    if isinstance(value, list):
        return [read(item) for item in value]
    return _read_scalar(value)


def _read_scalar(value: object) -> Any:
    match value:
        case int():
            return int(value)  # BSON's 64-bit integers have a type of their own
        case float():
            return value if math.isfinite(value) else None
        case datetime():
            return iso(value)
        case bytes():
            return base64.b64encode(value).decode()
    return str(value)


def _text(value: str, path: str) -> str:
    try:
        value.isascii() or value.encode()
    except UnicodeEncodeError:
        raise InvalidData(f"{path}: holds half a surrogate pair, which is no text") from None
    return str.__str__(value)  # an enum's member as plain text


def _integer(value: int, path: str) -> int:
    if not INT64[0] <= value <= INT64[1]:
        raise InvalidData(f"{path}: the number is beyond 64 bits; store it as text")
    return int(value)


def _number(value: float, path: str) -> float:
    if not math.isfinite(value):
        raise InvalidData(f"{path}: {float(value)} is not JSON; use None")
    return float(value)


def _decimal(value: Decimal, path: str) -> str:
    if not value.is_finite():
        raise InvalidData(f"{path}: Decimal {value} is not JSON; use None")
    return str(value)


def _bytes(value: bytes, path: str) -> str:
    raise InvalidData(f"{path}: bytes are not JSON; store text, such as their base64")


def _time_text(value: datetime, path: str) -> str:
    if value.utcoffset() is None:
        raise InvalidData(
            f"{path}: a datetime without a time zone; write datetime.now(UTC), "
            f"or add one with .replace(tzinfo=UTC)"
        )
    try:
        return iso(value)
    except OverflowError:
        raise InvalidData(f"{path}: the time is outside the years 1 to 9999 in UTC") from None


_CONVERTERS: tuple[tuple[Any, Callable[[Any, str], Any]], ...] = (
    (str, _text),
    (int, _integer),
    (float, _number),
    (datetime, _time_text),
    (UUID, lambda value, path: str(value)),
    (Decimal, _decimal),
    (bytes | bytearray | memoryview, _bytes),
)
