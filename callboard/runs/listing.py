"""The list of runs: the live ones and the history as one, newest first, page by page.

A page ends at a position (when its last run was enqueued, and its id), not at a count, so runs
that come, end, or move into the history shift nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from callboard import cursor
from callboard.errors import BadRequest, SealError
from callboard.runs.history import History, PastRun
from callboard.runs.live import Live, Position
from callboard.runs.outcome import WORKER_LOST
from callboard.runs.record import RunRecord
from callboard.runs.store import Runs

__all__ = ["RunFilter", "RunList"]

MAX_ENQUEUED = 10**13  # epoch milliseconds: the year 2286
MAX_CURSOR = 128  # characters
_RUN_ID = re.compile(r"[0-9a-z-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilter:
    """Which runs; None leaves a filter out."""

    caller: str | None = None
    parent: str | None = None  # the run that has started them
    action: str | None = None
    status: str | None = None  # with ``lost`` only None or "failed" make sense
    lost: bool = False  # only those that ended `Worker lost`
    recorded: bool = False  # only those with a record, as all that go on have: not the history


@dataclass(frozen=True, slots=True, kw_only=True)
class RunList:
    """The runs of one application, wherever they are kept."""

    runs: Runs
    live: Live
    history: History

    def page(
        self, wanted: RunFilter, limit: int, after: str | None
    ) -> tuple[list[RunRecord | PastRun], str | None]:
        """Up to ``limit`` runs and the cursor for what comes after them; None: no more.

        Raises `BadRequest` for a cursor that is none, `BrokerUnavailable` and
        `DatabaseUnavailable`.
        """
        position = None if after is None else _position(after)
        found: list[RunRecord | PastRun] = [
            *islice(self._live(wanted, position, limit + 1), limit + 1)
        ]
        past = self._past(wanted, position, limit + 1)
        # What is in both was started again, or has just been moved: the record counts.
        ids = [run.id for run in past]
        newer = {run.id for run in found} | self.live.among(ids)
        found += [run for run in past if run.id not in newer]
        found.sort(key=_place, reverse=True)
        # Beyond the last one read of the history there may be others.
        horizon = _place(past[-1]) if len(past) > limit else None
        known = [run for run in found if horizon is None or _place(run) >= horizon]
        if len(known) > limit:
            return known[:limit], cursor.encode(_place(known[limit - 1]))
        return known, horizon and cursor.encode(horizon)

    def _past(self, wanted: RunFilter, after: Position | None, limit: int) -> list[PastRun]:
        """Those of the history, which has none that go on."""
        if wanted.recorded or wanted.status in ("queued", "waiting", "running"):
            return []
        return self.history.page(
            caller=wanted.caller, parent=wanted.parent, action=wanted.action, status=wanted.status,
            lost=wanted.lost, after=after, limit=limit,
        )  # fmt: skip

    def _live(self, wanted: RunFilter, after: Position | None, batch: int) -> Iterator[RunRecord]:
        """The live runs after a position, newest first, read batch by batch."""
        status = "failed" if wanted.lost else wanted.status
        while True:
            places = self.live.page(
                caller=wanted.caller, parent=wanted.parent, action=wanted.action, status=status,
                after=after, limit=batch,
            )  # fmt: skip
            for place, row in zip(
                places, self.runs.rows([place.run_id for place in places]), strict=True
            ):
                record = _unreadable(place, row) if isinstance(row, SealError) else row
                # a run may have changed since its place was found, or been put into another's list
                if (
                    record
                    and wanted.caller in (None, record.caller)
                    and wanted.parent in (None, record.parent)
                    and status in (None, record.status)
                    and (not wanted.lost or record.error == WORKER_LOST)
                ):
                    yield record
            if len(places) < batch:
                return
            after = places[-1]


def _unreadable(place: Position, error: SealError) -> RunRecord:
    """Stands in the owner's list for a run that cannot be read."""
    return RunRecord(
        id=place.run_id,
        action="",
        status="failed",
        caller=None,
        enqueued=place.enqueued,
        started=None,
        ended=None,
        attempt=0,
        lost=0,
        error=str(error),
    )


def _place(run: RunRecord | PastRun) -> Position:
    return Position(run.enqueued, run.id)


def _position(text: str) -> Position:
    try:
        if len(text) > MAX_CURSOR:
            raise ValueError("longer than any cursor")
        enqueued, run_id = cursor.decode(text)
    except (ValueError, TypeError):
        enqueued, run_id = None, None
    number = type(enqueued) is int and 0 <= enqueued < MAX_ENQUEUED
    if not number or not (isinstance(run_id, str) and _RUN_ID.fullmatch(run_id)):
        raise BadRequest("after: not a cursor; pass the 'after' of the previous page unchanged")
    return Position(enqueued, run_id)
