"""The chaos suite's own report: what counts as recovery, and that it can fail."""

from __future__ import annotations

from typing import Any

import pytest
from chaos.faults import Fault
from chaos.findings import Finding
from chaos.intervals import Interval
from chaos.load import Call
from chaos.report import Report
from chaos.stack import API, BROKER, DATABASE, Away

LEASE = 5.0  # seconds; the bound is 5 more
CHILD, NEXT = 11, 12  # process ids
FAULT = Fault(kind="kill -9 of a worker", at=100.0, killed=(CHILD,))


def report(*, answered: float = 101.0, again: float = 101.0, **given: Any) -> Report:
    """A run of the suite with one fault, at 100 s: served again, and the run executed again, at."""
    call = Call(action="putProfile", key="k", params={}, sent=100.5, answered=answered, status=200)
    call.envelope = {"success": True}
    first = Interval(run_id="r", pid=CHILD, start=99.0, end=100.0, killed=True)
    second = Interval(run_id="r", pid=NEXT, start=again, end=again + 1)
    options = {"away": [], "findings": [], "problems": [], **given}
    return Report(
        seed=1, lease=LEASE, seconds=1, calls=[call], faults=[FAULT],
        intervals=[first, second], **options,
    )  # fmt: skip


def test_what_is_within_the_bound_passes() -> None:
    assert report(answered=110.0, again=110.0).passed


@pytest.mark.parametrize("late", [{"answered": 110.1}, {"again": 110.1}])
def test_a_slow_recovery_fails(late: dict[str, float]) -> None:
    assert not report(**late).passed


@pytest.mark.parametrize(
    "told",
    [{"findings": [Finding(kind="lost", text="a run")]}, {"problems": ["a worker ended"]}],
)
def test_a_finding_and_a_problem_fail(told: dict[str, Any]) -> None:
    assert not report(**told).passed


@pytest.mark.parametrize("server", [BROKER, DATABASE])
def test_servers_that_the_suite_starts_again_are_its_own_time(server: str) -> None:
    away = [Away(server, 101.0, 103.0), Away(server, 102.0, 104.0), Away(server, 50.0, 60.0)]
    assert report(answered=113.0, again=113.0, away=away).passed
    assert not report(answered=113.1, away=away).passed
    assert not report(again=113.1, away=away).passed


def test_a_rerun_does_not_wait_for_the_api() -> None:
    away = [Away(API, 101.0, 104.0)]
    assert report(answered=113.0, away=away).passed
    assert not report(again=113.0, away=away).passed
