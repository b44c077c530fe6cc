"""What becomes of the fires that are due: every combination of the two options."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from callboard import Schedule
from worker.schedules.planning import ON_TIME, plan_fires

NOW = datetime(2026, 1, 1, 12, 0, 5, tzinfo=UTC)
NOON = NOW - timedelta(seconds=5)
LATE = [NOON - timedelta(minutes=m) for m in (3, 2, 1)]


def outcomes(due: list[datetime], *, busy: bool = False, **options: Any) -> list[str]:
    schedule = Schedule("s", "work", every_minutes=1, **options)
    return [fire.outcome or "runs" for fire in plan_fires(schedule, due, NOW, busy=busy)]


@pytest.mark.parametrize("catch_up", ["none", "last", "all"])
def test_a_fire_on_time_runs_unless_the_last_run_goes_on(catch_up: str) -> None:
    assert outcomes([NOON], catch_up=catch_up) == ["runs"]
    assert outcomes([NOON], catch_up=catch_up, busy=True) == ["skipped"]
    assert outcomes([NOON], catch_up=catch_up, busy=True, overlap="allow") == ["runs"]


@pytest.mark.parametrize(
    ("catch_up", "expected"),
    [
        ("none", ["missed", "missed", "missed", "runs"]),
        ("last", ["missed", "missed", "missed", "runs"]),
        ("all", ["runs", "runs", "runs", "runs"]),
    ],
)
def test_missed_fires_before_one_on_time(catch_up: str, expected: list[str]) -> None:
    assert outcomes([*LATE, NOON], catch_up=catch_up) == expected


@pytest.mark.parametrize(
    ("catch_up", "expected", "busy"),
    [
        ("none", ["missed"] * 3, ["missed"] * 3),
        ("last", ["missed", "missed", "runs"], ["missed", "missed", "skipped"]),
        ("all", ["runs"] * 3, ["runs"] * 3),  # one after the other
    ],
)
def test_missed_fires_alone(catch_up: str, expected: list[str], busy: list[str]) -> None:
    assert outcomes(LATE, catch_up=catch_up) == expected
    assert outcomes(LATE, catch_up=catch_up, busy=True) == busy


def test_nothing_due_is_nothing_planned() -> None:
    assert outcomes([], catch_up="all") == outcomes([], catch_up="last") == []


def test_on_time_is_a_few_seconds() -> None:
    assert outcomes([NOW - ON_TIME], catch_up="none") == ["runs"]
    late = NOW - ON_TIME - timedelta(seconds=1)
    assert outcomes([late], catch_up="none") == ["missed"]
