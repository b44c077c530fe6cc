"""Filters: only operator objects become operators."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from callboard import all_of, exists, gt, gte, lt, ne, one_of
from callboard.errors import InvalidData
from callboard.sdk.where import Operator
from worker.tools.filters import filter_of


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (None, {}),
        ({}, {}),
        ({"a": 1}, {"data.a": {"$eq": 1}}),
        ({"a.b": None}, {"data.a.b": {"$eq": None}}),
        ({"a": all_of(gte(1), lt(5))}, {"data.a": {"$gte": 1, "$lt": 5}}),
        ({"a": one_of(1, "x", None)}, {"data.a": {"$in": [1, "x", None]}}),
        ({"a": exists(False)}, {"data.a": {"$exists": False}}),
        ({"a": ne("x"), "b": True}, {"data.a": {"$ne": "x"}, "data.b": {"$eq": True}}),
        ({"a": Decimal("1.0")}, {"data.a": {"$eq": "1.0"}}),
        ({"recordId": gt("x")}, {"_id": {"$gt": "x"}}),
        (
            {"createdAt": gt("2026-01-01T00:00:00Z")},
            {"createdAt": {"$gt": datetime(2026, 1, 1, tzinfo=UTC)}},
        ),
        ({"x": datetime(2026, 1, 1, tzinfo=UTC)}, {"data.x": {"$eq": "2026-01-01T00:00:00.000Z"}}),
    ],
    ids=repr,
)
def test_filters(where, expected):
    assert filter_of(where) == expected


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ([], "where: must be an object"),
        (gt(1), "where: must be an object"),
        ({"a": {"$gt": 1}}, r"where\.a: .* not with a dict"),
        ({"a": {}}, r"where\.a: .* not with a dict"),
        ({"a": [1]}, r"where\.a: .*one_of"),
        ({"a": one_of([1, 2])}, r"where\.a: .*one_of\(\*values\)"),
        ({"a": gt({"$ne": 1})}, r"where\.a: "),
        ({"a": gt(None)}, r"where\.a: gt\(\) cannot compare with None"),
        ({"a": lt(Decimal(1))}, r"where\.a: lt\(\) cannot compare"),
        ({"a": gt(gt(1))}, r"where\.a: an operator inside an operator"),
        ({"a": Operator({"$where": "1"})}, r"where\.a: unknown operator"),
        ({"a": Operator({"$in": "abc"})}, r"where\.a: unknown operator"),
        ({"a": float("nan")}, r"where\.a: nan"),
        ({"a": 2**64}, r"where\.a: .*64 bits"),
        ({"a": b"x"}, r"where\.a: bytes"),
        ({"createdAt": 5}, r"where\.createdAt: must be an aware datetime"),
        ({"$where": "1"}, "where: invalid field"),
    ],
    ids=repr,
)
def test_what_is_refused_names_the_field(where, told):
    with pytest.raises(InvalidData, match=told):
        filter_of(where)
