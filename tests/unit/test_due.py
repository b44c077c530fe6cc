"""When a run is to start, as clients write it."""

from datetime import UTC, datetime, timedelta

import pytest

from api.call.due import Due, due_of, read_due
from callboard.errors import BadRequest

NOW = datetime(2026, 1, 31, 9, tzinfo=UTC)
YEAR = 366 * 86_400


@pytest.mark.parametrize(
    ("delay", "at", "seconds"),
    [
        ("0", None, 0),
        ("1.5", None, 1.5),
        (str(YEAR), None, YEAR),
        (None, "2026-01-31T09:00:10Z", 10),
        (None, "2026-01-31T10:00:00.5+01:00", 0.5),
        (None, "20260131T090001+0000", 1),
        (None, "2026-01-31T08:59:59Z", -1),
    ],
)
def test_headers(delay: str | None, at: str | None, seconds: float) -> None:
    assert read_due(delay, at).seconds(lambda: NOW) == seconds


@pytest.mark.parametrize(
    "delay",
    ["", "-1", "+1", "1e3", "soon", "1.", ".5", "nan", "inf", "\u0661", str(YEAR + 1), "9" * 90],
)
def test_a_bad_delay_is_named(delay: str) -> None:
    with pytest.raises(BadRequest, match="Run-Delay takes seconds") as refused:
        read_due(delay, None)
    assert repr(delay[:40]) in str(refused.value)


@pytest.mark.parametrize(
    "at",
    [
        *("", "soon", "1769850000", "2026-01-31", "2026-01-31T09:00:00", "2026-02-30T09:00:00Z"),
        *("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-01-31T09:00:00Z" * 9),
    ],
)
def test_a_bad_time_is_named(at: str) -> None:
    with pytest.raises(BadRequest, match="Run-At takes a time as ISO 8601") as refused:
        read_due(None, at)
    assert repr(at[:40]) in str(refused.value)


def test_both_headers_are_refused() -> None:
    with pytest.raises(BadRequest, match="send one of them"):
        read_due("1", "2026-01-31T09:00:00Z")


def test_a_time_is_at_most_366_days_ahead() -> None:
    def due(seconds: int) -> Due:
        return read_due(None, (NOW + timedelta(seconds=seconds)).isoformat())

    assert due(YEAR).seconds(lambda: NOW) == YEAR
    with pytest.raises(BadRequest, match="Run-At: at most 366 days"):
        due(YEAR + 1).seconds(lambda: NOW)


def test_a_time_that_is_past_is_told() -> None:
    refusal = read_due(None, "2026-01-31T08:00:00Z").past()
    assert "2026-01-31T08:00:00+00:00 is past" in str(refusal)


def test_bodies() -> None:
    assert due_of(90, None).seconds(lambda: NOW) == 90
    assert due_of(None, "2026-01-31T09:01:00Z").seconds(lambda: NOW) == 60


@pytest.mark.parametrize(
    ("delay", "at"),
    [
        (None, None), (1, "2026-01-31T09:00:00Z"), ("1", None), (True, None), (-0.1, None),
        (YEAR + 1, None), (10**400, None), ([], None), ({}, None), (None, 5), (None, ["x"]),
    ],
)  # fmt: skip
def test_bad_bodies(delay: object, at: object) -> None:
    with pytest.raises(BadRequest) as refused:
        due_of(delay, at)
    assert len(str(refused.value)) < 200
