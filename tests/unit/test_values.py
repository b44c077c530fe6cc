"""Values: what a record can hold, and what is refused by name."""

from __future__ import annotations

import json
from collections import OrderedDict
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from uuid import UUID

import pytest
from bson import Decimal128, Int64, ObjectId

from callboard.errors import InvalidData
from worker.tools.values import now, read, stored, stored_data, stored_time


class Color(str, Enum):  # noqa: UP042 - both kinds are in use
    RED = "red"


class Size(IntEnum):
    BIG = 3


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (None, None),
        (True, True),
        (2**63 - 1, 2**63 - 1),
        (-(2**63), -(2**63)),
        (1.5, 1.5),
        ("a\0é", "a\0é"),
        (Color.RED, "red"),
        (Size.BIG, 3),
        ((1, [2]), [1, [2]]),
        (OrderedDict(a=1), {"a": 1}),
        (datetime(2026, 1, 2, 3, 4, 5, 6789, tzinfo=UTC), "2026-01-02T03:04:05.006Z"),
        (datetime(1, 1, 2, tzinfo=UTC), "0001-01-02T00:00:00.000Z"),
        (datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=2))), "2025-12-31T22:00:00.000Z"),
        (UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (Decimal("1.10"), "1.10"),
        (Decimal("1E+3"), "1E+3"),
    ],
)
def test_what_is_kept(value, kept):
    result = stored({"x": value}, "data")["x"]
    assert result == kept
    assert type(result) is type(kept)
    assert json.loads(json.dumps(result, allow_nan=False)) == result


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (float("nan"), "nan is not JSON"),
        (float("-inf"), "-inf is not JSON"),
        (2**63, "beyond 64 bits"),
        (-(2**63) - 1, "beyond 64 bits"),
        (b"x", "base64"),
        (bytearray(b"x"), "base64"),
        (Decimal("NaN"), "NaN is not JSON"),
        (datetime(2026, 1, 1), "without a time zone"),  # noqa: DTZ001 - the case
        (datetime.min.replace(tzinfo=timezone(timedelta(hours=2))), "outside the years"),
        (date(2026, 1, 1), "a date is not JSON"),
        ("\ud800", "surrogate"),
        ({1, 2}, "a set is not JSON"),
        (object(), "a object is not JSON"),
        (1j, "a complex is not JSON"),
    ],
)
def test_what_is_refused_names_the_field(value, told):
    with pytest.raises(InvalidData, match=told) as error:
        stored_data({"a": [{"b": value}]})
    assert str(error.value).startswith("data.a.0.b: ")


@pytest.mark.parametrize("value", [None, [], "x", 1, [("a", 1)]])
def test_data_is_an_object(value):
    with pytest.raises(InvalidData, match="patch: must be an object"):
        stored_data(value, "patch")


def test_a_cycle_is_too_deep():
    data = {}
    data["a"] = data
    with pytest.raises(InvalidData, match="deeper than 64"):
        stored_data(data)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-01T00:00:00.000Z", datetime(2026, 1, 1, tzinfo=UTC)),
        ("2026-01-01T02:00+02:00", datetime(2026, 1, 1, tzinfo=UTC)),
        (None, None),
    ],
)
def test_times_to_compare_with(text, moment):
    assert stored_time(text, "where.createdAt") == moment


@pytest.mark.parametrize("value", ["", "today", "2026-01-01", 5, True, {"$gt": ""}])
def test_what_is_no_time(value):
    with pytest.raises(InvalidData, match=r"where\.createdAt"):
        stored_time(value, "where.createdAt")


def test_now_has_milliseconds():
    assert now().microsecond % 1000 == 0


@pytest.mark.parametrize(
    ("value", "json_value"),
    [
        (Int64(5), 5),
        (float("inf"), None),
        (datetime(2026, 1, 1, tzinfo=UTC), "2026-01-01T00:00:00.000Z"),
        (b"\xff", "/w=="),
        (Decimal128("1.50"), "1.50"),
        (ObjectId("0" * 24), "0" * 24),
        ({"a": [Int64(1), b""]}, {"a": [1, ""]}),
    ],
)
def test_other_bson_types_are_read_as_json(value, json_value):
    assert read(value) == json_value
    json.dumps(read(value), allow_nan=False)
