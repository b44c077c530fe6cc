"""Strict JSON: what a call carries in and a result carries out.

What `loads` takes, every part of Callboard can read, and every client can read what `dumps`
writes. Beyond the grammar of RFC 8259:

- objects and lists lie inside each other at most `MAX_DEPTH` deep, the outermost one counted
- numbers are finite: NaN, Infinity and what no double holds (1e400) are refused; a whole number
  comes through as it was sent, up to `MAX_DIGITS` digits
- text is Unicode: half of a surrogate pair is refused
- of two values under one key the last one counts, as for ``json`` and ``JSON.parse``

Nothing here depends on Python's recursion limit: the parser counts the depth itself.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Set
from datetime import datetime
from typing import Any

from pydantic_core import PydanticSerializationError, from_json, to_jsonable_python

__all__ = ["MAX_DEPTH", "MAX_DIGITS", "NotJson", "dumps", "jsonable", "loads"]

MAX_DEPTH = 64
MAX_DIGITS = 4_300  # of a whole number; beyond that Python's own conversions refuse it

_TOO_LARGE = 10**MAX_DIGITS
_MAX_PATH = 200  # characters of a path that a message shows
_MAX_PIECES = 50_000  # that are looked at to find where a mistake is (25 ms)


class NotJson(ValueError):
    """A value or a text that is no strict JSON: where, and why."""

    def __init__(self, path: Iterable[object], reason: str) -> None:
        dotted = ".".join(map(_shown, path))[:_MAX_PATH]
        self.path = dotted.encode(errors="backslashreplace").decode()  # half a surrogate pair
        self.reason = reason
        super().__init__(f"{self.path}: {reason}" if self.path else reason)


def _shown(part: object) -> str:
    """A part of a path: a key may be any object of a handler's."""
    try:
        return str(part)
    except Exception:  # noqa: BLE001 - one that has no text
        return f"<{type(part).__name__}>"


def loads(text: bytes | str, max_depth: int = MAX_DEPTH) -> Any:
    """The value of a JSON text; raises `NotJson`.

    ``max_depth``: more than `MAX_DEPTH` for an envelope of Callboard's own around a value.
    """
    content = text if isinstance(text, bytes) else text.encode(errors="surrogatepass")
    try:
        value = from_json(content, allow_inf_nan=False)
    except ValueError as error:
        raise _found_in(content, max_depth) or NotJson((), str(error)) from None
    if _is_deeper(content, max_depth):
        raise _found_in(content, max_depth) or _too_deep(())
    if _may_overflow(content) and not all(map(_is_finite, _scalars(value))):
        raise _found_in(content, max_depth) or NotJson((), "a number is beyond a 64-bit float")
    return value


def dumps(value: Any, max_depth: int = MAX_DEPTH) -> bytes:
    """Compact JSON of a value, in UTF-8; raises `NotJson`.

    A plain value is written at once, which costs no more than ``json.dumps``; what is not plain
    goes through `jsonable`.
    """
    try:
        text = _encode(value).encode()
    except (TypeError, ValueError, RecursionError):
        return _encode(jsonable(value, max_depth=max_depth)).encode()
    if _is_deeper(text, max_depth):
        jsonable(value, max_depth=max_depth)  # raises, and says where
        raise _too_deep(())
    return text


_encode = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode


# What a value must fulfil besides


def _is_deeper(text: bytes, depth: int) -> bool:
    """Whether this JSON has objects and lists more than ``depth`` deep; 2 to 5 ms for 1 MiB.

    Its brackets alone are looked at: in each pass the innermost pairs are taken away.
    """
    if len(text) <= 2 * depth or text.count(b"[") + text.count(b"{") <= depth:
        return False
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    outside_texts = text.translate(_TO_BRACKETS, _NO_BRACKETS).split(b'"')[::2]
    brackets = b"".join(outside_texts)
    for _ in range(depth):
        if not brackets:
            return False
        brackets = brackets.replace(b"[]", b"")
    return bool(brackets)


_TO_BRACKETS = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(set(range(256)) - set(b'[]{}"'))


def _scalars(value: Any) -> Iterator[Any]:
    level = [value]
    while level:
        parents = [item for item in level if isinstance(item, dict | list)]
        yield from (item for item in level if not isinstance(item, dict | list))
        level = [
            child
            for parent in parents
            for child in (parent.values() if isinstance(parent, dict) else parent)
        ]


def _is_finite(value: Any) -> bool:
    return type(value) is not float or math.isfinite(value)


def _may_overflow(text: bytes) -> bool:
    """Whether a number of the text may be beyond a float: a cheap test that errs to yes."""
    folded = text.translate(_FOLDED, b"+")
    return b"0e000" in folded or _MANY_DIGITS in folded


_FOLDED = bytes.maketrans(b"123456789E", b"000000000e")
_MANY_DIGITS = b"0" * 200  # fewer, with an exponent of two digits, are still a float


def _too_deep(path: Iterable[object]) -> NotJson:
    return NotJson(path, f"nested deeper than {MAX_DEPTH} levels")


# Where a text is wrong


def _found_in(text: bytes, max_depth: int) -> NotJson | None:
    """The first value that JSON's grammar allows and strict JSON does not; None for none.

    A walk over the pieces, of bounded cost; a mistake of grammar is not looked for.
    """
    try:
        pieces = _PIECE.finditer(text.decode())
    except UnicodeDecodeError as error:
        return NotJson((), f"not UTF-8 at byte {error.start}")
    path: list[Any] = []  # of each open object its key, of each open list its index
    is_name = False  # whether a text that comes now is a key
    for piece in (match[0] for match in itertools.islice(pieces, _MAX_PIECES)):
        if piece in "[{":
            if len(path) >= max_depth:
                return _too_deep(path)
            is_name = piece == "{"
            path.append(None if is_name else 0)
        elif piece in "]}":
            path, is_name = path[:-1], False
        elif piece == ",":
            is_name = bool(path) and not isinstance(path[-1], int)
            path[-1:] = [last if is_name else last + 1 for last in path[-1:]]
        elif piece != ":":
            if is_name:
                path[-1], is_name = _text_of(piece), False
            if (reason := _mistake(piece)) is not None:
                return NotJson(path, reason)
    return None


_PIECE = re.compile(
    r"""
    "[^"\\]*+(?:\\.[^"\\]*+)*+"?   # a text; also one without an end, so that nothing is read twice
    | [\[\]{},:]
    | [^\s\[\]{},:"]++             # a number or a word
    """,
    re.VERBOSE | re.DOTALL,
)


def _text_of(piece: str) -> str:
    try:
        return str(json.loads(piece, strict=False))
    except ValueError:
        return piece


def _mistake(piece: str) -> str | None:
    """What is wrong with a text, a number or a word, besides the grammar."""
    if piece.startswith('"'):
        return _text_mistake(_text_of(piece))
    if piece in ("NaN", "Infinity", "-Infinity"):
        return f"{piece} is not JSON"
    if not _NUMBER.fullmatch(piece):
        return None
    if piece.lstrip("-").isdigit():
        return f"a number of more than {MAX_DIGITS} digits" if len(piece) > MAX_DIGITS + 1 else None
    return None if math.isfinite(float(piece)) else f"{piece:.40} is beyond a 64-bit float"


_NUMBER = re.compile(r"-?[0-9]++(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?")


# What Python has and JSON has not


def jsonable(
    value: Any,
    path: tuple[object, ...] = (),
    held: tuple[int, ...] = (),
    max_depth: int = MAX_DEPTH,
) -> Any:
    """A value as dicts, lists, texts, numbers, booleans and None; raises `NotJson`.

    Models, dataclasses, UUID, Decimal, enums, dates, sets and all else that pydantic serialises
    become what it makes of them. A datetime must be aware. ``path``: of ``value``; ``held``: the
    ids of what it lies in.
    """
    if isinstance(value, str | int | float) or value is None:
        return _plain(value, path)
    if isinstance(value, datetime) and value.utcoffset() is None:
        raise NotJson(path, "a datetime without a time zone; write datetime.now(UTC)")
    if not isinstance(value, Mapping | list | tuple | Set) or hasattr(value, "model_dump"):
        value = _by_pydantic(value, path)
        if not isinstance(value, dict | list):
            return _plain(value, path)
    if id(value) in held:
        raise NotJson(path, f"the {type(value).__name__} holds itself")
    if len(held) >= max_depth:
        raise _too_deep(path)
    within = (*held, id(value))
    if isinstance(value, Mapping):
        return {
            _key(key, path): jsonable(item, (*path, key), within, max_depth)
            for key, item in value.items()
        }
    return [jsonable(item, (*path, index), within, max_depth) for index, item in enumerate(value)]


def _by_pydantic(value: Any, path: tuple[object, ...]) -> Any:
    kind = type(value).__name__
    try:
        return to_jsonable_python(value)
    except PydanticSerializationError as error:
        if dataclasses.is_dataclass(value) or hasattr(value, "model_dump"):
            raise NotJson(path, f"the {kind} cannot be serialised: {error}") from error
        raise NotJson(path, f"a {kind} is not JSON; convert it first") from error
    except Exception as error:  # of a serialiser of the application's
        why = f"{type(error).__name__}: {error}"
        raise NotJson(path, f"the {kind} cannot be serialised: {why}") from error


def _key(key: Any, path: tuple[object, ...]) -> Any:
    """A key as text, or as a scalar that ``json`` makes a text of."""
    made = jsonable(key, (*path, key))
    if isinstance(made, dict | list):
        raise NotJson((*path, key), f"a {type(key).__name__} is no key; use a text")
    return made


def _plain(value: Any, path: tuple[object, ...]) -> Any:
    reason = None
    if isinstance(value, str):
        reason = _text_mistake(value)
    elif isinstance(value, float) and not math.isfinite(value):
        reason = f"{float(value)} is not JSON; use None"
    elif isinstance(value, int) and abs(value) >= _TOO_LARGE:
        reason = f"a number of more than {MAX_DIGITS} digits; use a text"
    if reason:
        raise NotJson(path, reason)
    return value


def _text_mistake(text: str) -> str | None:
    try:
        text.isascii() or text.encode()
    except UnicodeEncodeError:
        return "half of a surrogate pair is no text"
    return None
