"""Values of a log line: whatever is logged becomes plain and bounded, and a line valid JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from datetime import date, time
from decimal import Decimal
from pathlib import PurePath
from typing import Any
from uuid import UUID

__all__ = ["cut", "plain", "to_json"]

TEXT = 16_384  # characters of one text
LINE = 65_536  # characters of all texts of a line
ITEMS = 100  # of one container
NODES = 1_000  # values of a line
DEPTH = 6
_BY_TEXT = (date, time, UUID, Decimal, PurePath)


def to_json(value: object) -> str:
    """The value as JSON, plain and bounded first; it raises nothing."""
    return _ENCODER.encode(plain(value))


def plain(value: object) -> Any:
    """The value of JSON's types only: finite numbers, text that is Unicode, keys that are text."""
    return _Bounded().value(value, 0)


def cut(text: str, length: int = TEXT) -> str:
    """The text, or its beginning and its end: of a traceback both matter."""
    if len(text) > length:
        half = length // 2
        text = f"{text[:half]} ... {len(text) - 2 * half} characters ... {text[-half:]}"
    return text


_ENCODER = json.JSONEncoder(allow_nan=False)


class _Bounded:
    """One line's values; counts what they take."""

    def __init__(self) -> None:
        self._characters = LINE
        self._nodes = NODES

    def value(self, value: object, depth: int) -> Any:
        self._nodes -= 1
        if self._nodes < 0 or self._characters <= 0:
            return "..."
        kind = type(value)
        if value is None or kind is bool:
            return value
        if kind is str:
            return self._text(value)  # type: ignore[arg-type]
        if kind in (int, float):
            return self._number(value)  # type: ignore[arg-type]
        if depth >= DEPTH:
            return "..."
        return self._guarded(lambda: self._other(value, depth), value)

    def _other(self, value: object, depth: int) -> Any:
        if isinstance(value, Mapping):
            return self._mapping(value, depth)
        if isinstance(value, (list, tuple, set, frozenset)):
            return [self.value(item, depth + 1) for item in _first(value)]
        if isinstance(value, (bytes, bytearray)):
            return self._text(bytes(value[:TEXT]).decode(errors="backslashreplace"))
        if isinstance(value, BaseException):
            return self._text(f"{type(value).__name__}: {value}")
        if isinstance(value, (str, _BY_TEXT)):
            return self._text(str(value))
        return self._text(repr(value))

    def _mapping(self, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key in _first(value):
            name = key if type(key) is str else str(self.value(key, depth + 1))
            found[self._text(name)] = self.value(value[key], depth + 1)
        return found

    def _number(self, value: float) -> Any:
        if type(value) is int:
            bits = value.bit_length()
            return value if bits < 64 else self._text(hex(value) if bits < 4096 else f"{bits} bits")
        return value if math.isfinite(value) else str(value)

    def _text(self, text: str) -> str:
        text = cut(str(text), min(TEXT, self._characters))
        self._characters -= len(text)
        # half a surrogate is no Unicode
        return text if text.isascii() else text.encode(errors="replace").decode()

    def _guarded(self, make: Callable[[], Any], value: object) -> Any:
        """A value whose own code fails is named by its type."""
        try:
            return make()
        except Exception:  # noqa: BLE001 - whatever a __str__ or __repr__ raises
            return f"<{type(value).__name__} without a text>"


def _first(items: Iterable[Any]) -> list[Any]:
    return [item for item, _ in zip(items, range(ITEMS), strict=False)]
