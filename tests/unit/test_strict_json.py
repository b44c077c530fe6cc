"""Strict JSON: what is refused says where, and what is taken can be read by everybody."""

import enum
import json
import sys
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, strategies as st
from pydantic import BaseModel, field_serializer

from callboard import ActionResult, ok
from callboard.strict_json import MAX_DEPTH, MAX_DIGITS, NotJson, dumps, loads

MIB = 1024 * 1024
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=200,
)  # fmt: skip


@given(anything)
def test_what_is_written_is_read_again(value: Any) -> None:
    assert loads(dumps(value)) == value
    assert loads(json.dumps(value)) == value
    assert json.loads(dumps(value)) == value


def nested(depth: int, opens: str = "[", closes: str = "]") -> bytes:
    return (opens * depth + ("1" if opens != "[" else "") + closes * depth).encode()


@pytest.mark.parametrize(("opens", "closes"), [("[", "]"), ('{"a":', "}")])
def test_the_depth_is_bounded(opens: str, closes: str) -> None:
    fits = nested(MAX_DEPTH, opens, closes)
    value = loads(fits)
    assert dumps(value) == fits
    for depth in (MAX_DEPTH + 1, 150, 199, 201, 950, 100_000):
        with pytest.raises(NotJson, match="nested deeper than 64 levels"):
            loads(nested(depth, opens, closes))


def test_brackets_beside_each_other_or_in_texts_are_no_depth() -> None:
    for value in ([[]] * 1000, ["[{" * 100], {'"[' * 80: '\\"[' * 80, "\\": ["[" * 80, "]"]}):
        assert loads(dumps(value)) == value


def test_the_deepest_of_many_is_found() -> None:
    text = b"[" + b"[]," * 500 + nested(MAX_DEPTH) + b"]"
    with pytest.raises(NotJson, match=r"^500\.0\..*nested deeper"):
        loads(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b'{"x": 1e400}', "x: 1e400 is beyond a 64-bit float"),
        (b'{"x": [0, {"y": -1E+999}]}', "x.1.y: -1E+999 is beyond"),
        (b'{"x": [1' + b"0" * 400 + b".5]}", "x.0: 10000"),
        (b'{"x": 1' + b"0" * 299 + b"e10}", "x: 10000"),
        (b'{"x": NaN}', "x: NaN is not JSON"),
        (b"[1, -Infinity]", "1: -Infinity is not JSON"),
        (b'{"x": "\\ud800"}', "x: half of a surrogate pair is no text"),
        (b'{"a": [{"\\udc00z": 1}]}', r"a.0.\udc00z: half of a surrogate pair is no text"),
        (b'{"x": ' + b"9" * 5000 + b"}", "x: a number of more than 4300 digits"),
        (b'{"x": "\xff"}', "not UTF-8 at byte 7"),
        (b'{"x": "\xed\xa0\x80"}', "not UTF-8"),
        (b"", "EOF"),
        (b'{"x": 01}', "line 1 column 8"),
        (b'{"x": "a\nb"}', "control character"),
        (b"{'x': 1}", "line 1 column 2"),
        (b"[1,]", "line 1 column"),
        (b"\xef\xbb\xbf{}", "line 1 column 1"),
    ],
)
def test_what_is_refused_is_named(text: bytes, told: str) -> None:
    with pytest.raises(NotJson) as caught:
        loads(text)
    assert told in str(caught.value)
    str(caught.value).encode()


def test_numbers_come_through_as_they_were_sent() -> None:
    for number in (10**30 - 7, -(10**100), int("9" * MAX_DIGITS), 1e308, 5e-324, 1e-400, 0.1):
        assert loads(dumps({"x": number})) == {"x": number}
    assert loads(b'{"id": "6e999", "e1000": [12e3]}') == {"id": "6e999", "e1000": [12000.0]}


def test_the_last_of_two_values_under_one_key_counts() -> None:
    assert loads(b'{"a": 1, "a": 2}') == {"a": 2}


def test_a_pair_of_surrogates_is_one_character() -> None:
    assert loads(rb'"\ud83d\ude00"') == "\N{GRINNING FACE}"
    with pytest.raises(NotJson):
        loads('"\ud800"')


@pytest.mark.parametrize(
    "text",
    [b"[" * MIB, b'{"a":' * (MIB // 5), b"[[]," * (MIB // 4), b'"' + b'\\"' * (MIB // 2),
     b'"\\ud800",' * (MIB // 9), b"1" * MIB, b"1e400," * (MIB // 6), b"\\" * MIB,
     b"[" + b"[" * 63 + b"]" * 63 + b",[" * 63 * 8000, b'[{"a":1e400},' * 80_000],
)  # fmt: skip
def test_a_mib_of_the_worst_is_refused_soon(text: bytes) -> None:
    started = time.process_time()
    with pytest.raises(NotJson):
        loads(text[:MIB])
    assert time.process_time() - started < 1


def test_the_recursion_limit_is_not_what_refuses() -> None:
    text, limit = nested(MAX_DEPTH), sys.getrecursionlimit()
    value = loads(text)
    sys.setrecursionlimit(len(_stack()) + 40)
    try:
        read = loads(text)
        with pytest.raises(NotJson):
            loads(nested(150))
    finally:
        sys.setrecursionlimit(limit)
    assert read == value


def _stack() -> list[Any]:
    frames, frame = [], sys._getframe()
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back  # type: ignore[assignment]
    return frames


class Color(enum.Enum):
    red = "RED"


class Level(enum.IntEnum):
    low = 1


@dataclass
class Point:
    x: int
    at: datetime


class Order(BaseModel):
    id: uuid.UUID
    price: Decimal
    colors: set[Color]
    points: tuple[Point, ...] = ()


class Broken(BaseModel):
    secret: int = 1

    @field_serializer("secret")
    def _fails(self, value: int) -> int:
        raise LookupError("no such value")


class Holder(BaseModel):
    value: Any


NOON = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
ID = uuid.UUID("6f0d7ad6-9d0c-5c3e-9f3b-0a8b9ad4c1de")


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (NOON, "2026-01-02T12:00:00Z"),
        (NOON.astimezone(timezone(timedelta(hours=2))), "2026-01-02T14:00:00+02:00"),
        (date(2026, 1, 2), "2026-01-02"),
        (timedelta(minutes=90), "PT1H30M"),
        (ID, str(ID)),
        (Decimal("1.10"), "1.10"),
        (Color.red, "RED"),
        (Level.low, 1),
        ({7}, [7]),
        (frozenset(), []),
        ((1, (2,)), [1, [2]]),
        (b"text", "text"),
        (Point(1, NOON), {"x": 1, "at": "2026-01-02T12:00:00Z"}),
        ({ID: 1, NOON: 2, Color.red: 3, 4: None},
         {str(ID): 1, "2026-01-02T12:00:00Z": 2, "RED": 3, "4": None}),
        (Holder(value=float("inf")), {"value": None}),
        (Order(id=ID, price=Decimal(2), colors={Color.red}, points=(Point(1, NOON),)),
         {"id": str(ID), "price": "2", "colors": ["RED"],
          "points": [{"x": 1, "at": "2026-01-02T12:00:00Z"}]}),
    ],
)  # fmt: skip
def test_what_python_has_besides_is_written_as_pydantic_writes_it(value: Any, written: Any) -> None:
    assert json.loads(dumps(value)) == written
    assert json.loads(dumps({"a": [value, "plain"]})) == {"a": [written, "plain"]}


RING: list[Any] = []
RING.append({"again": RING})


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (object(), "a object is not JSON"),
        (lambda: 1, "a function is not JSON"),
        (b"\xff", "bytes"),
        (float("nan"), "nan is not JSON; use None"),
        (float("-inf"), "-inf is not JSON"),
        (datetime(2026, 1, 1), "a datetime without a time zone"),  # noqa: DTZ001 - the point
        ("\ud800", "half of a surrogate pair is no text"),
        pytest.param(10**MAX_DIGITS, "a number of more than 4300 digits", id="digits"),
        (RING, "holds itself"),
        (deep(100), "nested deeper than 64 levels"),
        (deep(100_000), "nested deeper than 64 levels"),
        (Holder(value=deep(100)), "nested deeper than 64 levels"),
        (Holder(value=object()), "the Holder cannot be serialised"),
        (Broken(), "the Broken cannot be serialised"),
    ],
)
def test_what_is_no_json_is_told_with_its_path(value: Any, reason: str) -> None:
    result: ActionResult = ok({"order": [0, value]})
    with pytest.raises(NotJson) as caught:
        dumps(result.envelope())
    assert caught.value.path.startswith("data.order.1")
    assert reason in caught.value.reason


class Shy:
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ((1, 2), "a tuple is no key"),
        (Shy(), "a Shy is not JSON"),
        ("\ud800", "half of a surrogate pair"),
        (object(), "a object is not JSON"),
        (float("nan"), "nan is not JSON"),
    ],
)
def test_a_key_that_is_none_is_told(key: Any, reason: str) -> None:
    with pytest.raises(NotJson, match=reason):
        dumps({"a": {key: 1}})
