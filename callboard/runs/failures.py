"""What fails: the failed runs of the last hours, by action and by what they failed with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from callboard.runs.history import PastRun
from callboard.runs.listing import RunFilter, RunList
from callboard.runs.record import RunRecord

__all__ = ["LOOKED_AT", "FailureGroup", "failures"]

LOOKED_AT = 5_000  # runs, the newest first
PAGE = 500  # that are read at once


@dataclass(slots=True, kw_only=True)
class FailureGroup:
    """Runs that failed alike. Times are epoch milliseconds, of when they were enqueued."""

    action: str
    exception: str | None  # the type that was raised; None: the handler answered a failure, or
    error: str  # ... Callboard ended the run; what the caller of the last one was told
    run_id: str  # of the last one
    count: int = 0
    first: int
    last: int


def failures(
    runs: RunList, *, since: int, action: str | None = None
) -> tuple[list[FailureGroup], bool]:
    """The groups, the largest first, and whether all runs since then were looked at.

    ``since``: epoch milliseconds, of the enqueuing. Raises as `RunList.page`.
    """
    groups: dict[tuple[str, str | None, str], FailureGroup] = {}
    for number, run in enumerate(_failed(runs, since, action)):
        if number == LOOKED_AT:
            return _sorted(groups), False
        _add(groups, run)
    return _sorted(groups), True


def _failed(runs: RunList, since: int, action: str | None) -> Iterator[RunRecord | PastRun]:
    after: str | None = None
    while True:
        page, after = runs.page(RunFilter(status="failed", action=action), PAGE, after)
        for run in page:
            if run.enqueued < since:
                return
            yield run
        if after is None:
            return


def _add(groups: dict[tuple[str, str | None, str], FailureGroup], run: RunRecord | PastRun) -> None:
    error = run.error or ""
    key = (run.action, run.exception, "" if run.exception else error)
    group = groups.get(key)
    if group is None:
        group = groups[key] = FailureGroup(
            action=run.action,
            exception=run.exception,
            error=error,
            run_id=run.id,
            first=run.enqueued,
            last=run.enqueued,
        )
    group.count += 1
    group.first = min(group.first, run.enqueued)


def _sorted(groups: dict[tuple[str, str | None, str], FailureGroup]) -> list[FailureGroup]:
    return sorted(groups.values(), key=lambda group: (-group.count, -group.last))
