"""What the processes of a worker tell its main process of their process hook."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from forked import forked

from callboard.sdk import hooks
from worker.hooks.reports import Reports


@hooks.process
def clients() -> Iterator[None]:
    yield


@pytest.fixture
def reports() -> Iterator[Reports]:
    reports = Reports()
    yield reports
    reports.close()


def test_a_process_is_awaited_until_it_is_ready(reports: Reports) -> None:
    with forked(lambda: reports.begins(clients)) as first, forked(reports.ready) as second:
        assert not reports.are_ready({first, second})
        assert reports.are_ready({second})
        assert reports.failures() == []
        assert reports.waiting() == []  # it may take a moment
        assert reports.waiting(0.0)[0].endswith("'clients' has not come to its yield")


def test_one_that_failed_is_told_of_until_it_is_ready_or_gone(reports: Reports) -> None:
    with forked(lambda: reports.failed("no DSN")) as pid:
        assert reports.failures() == reports.waiting() == ["no DSN"]
        assert not reports.are_ready({pid})
    assert reports.failures() == []
    assert reports.are_ready({pid})

    def again() -> None:
        reports.failed("no DSN")
        reports.ready()

    with forked(again) as pid:
        assert reports.failures() == []
        assert reports.are_ready({pid})


def test_a_long_reason_and_a_full_pipe_stop_nobody(reports: Reports) -> None:
    def often() -> None:
        for _ in range(1_000):
            reports.failed("\N{SNOWMAN}" * 100_000)

    with forked(often):
        assert reports.failures() == ["\N{SNOWMAN}" * 500]
