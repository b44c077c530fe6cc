"""What is due is never early: delays are rounded up, and counted from a time that is over."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest

from callboard import action, ok
from callboard.clock import DatabaseClock
from callboard.runs.outbox import Row
from callboard.runs.seal import Call
from callboard.runs.start import Start, milliseconds

NOW = datetime(2026, 11, 26, tzinfo=UTC)


@action
def work(ctx: Any) -> Any:
    return ok()


class LateClock(DatabaseClock):
    """Of a database that looks at its clock as late as it can, and then answers."""

    def _hello(self) -> Any:
        return {"localTime": NOW.replace(tzinfo=None)}


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.0, 0),
        (1e-6, 1),
        (0.0004, 1),
        (0.001, 1),
        (0.0011, 2),
        (1.1, 1100),
        (31_622_400, 31_622_400_000),
    ],
)
def test_a_delay_is_rounded_up(seconds: float, expected: int) -> None:
    assert milliseconds(seconds) == expected


@pytest.mark.parametrize("micros", [1, 499, 999, 1000, 1_000_001])
def test_a_row_is_published_for_its_time_or_just_behind(micros: int) -> None:
    due = NOW + timedelta(microseconds=micros)
    start = Start(run_id="r", action=work, call=Call(caller=None))
    delay = timedelta(milliseconds=Row(start=start, due=due).at(NOW).terms.delay)
    assert due <= NOW + delay < due + timedelta(milliseconds=1)


def test_however_long_the_database_takes_to_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = count(0, 10)  # seconds
    monkeypatch.setattr("callboard.clock.time", SimpleNamespace(monotonic=lambda: next(ticks)))
    clock = LateClock(lambda: pytest.fail("nothing is asked"), local=NOW.timestamp)
    assert clock() == NOW + timedelta(seconds=5)  # as good as can be told
    assert clock.passed() == NOW
