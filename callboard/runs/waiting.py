"""Waiting runs, as their callers change them: those in Redis, and those in the outbox alone."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from callboard.clock import DatabaseClock
from callboard.connections.mongodb import Document
from callboard.errors import BadRequest, DatabaseUnavailable
from callboard.runs.children import group_runs
from callboard.runs.outbox import Outbox, Row
from callboard.runs.outcome import Outcome
from callboard.runs.record import RunRecord
from callboard.runs.seal import CALL_LIFETIME
from callboard.runs.signals import Sent
from callboard.runs.start import PARKED_SECONDS, Start, milliseconds
from callboard.runs.store import Runs

if TYPE_CHECKING:
    from pymongo.database import Database

    from callboard.sdk.action import Action

__all__ = ["LONGEST", "WaitingRuns"]

LONGEST = 366 * 86_400  # seconds until a run may be due
PACKET = 250  # runs that are canceled at once
_HOUR = 3_600_000  # milliseconds: not due before it is canceled
_SOON = 100  # milliseconds: as good as at once


class WaitingRuns:
    """Those of one application. ``actions``: by name."""

    def __init__(
        self,
        runs: Runs,
        database: Callable[[], Database[Document]],
        actions: Mapping[str, Action[Any]],
    ) -> None:
        self._runs = runs
        self._outbox = Outbox(database, runs.sealer)
        self._actions = actions
        self._clock = DatabaseClock(database).passed

    def find(self, run_id: str) -> RunRecord | None:
        """A run that the outbox has and Redis has not: its queue is full, or its start was
        committed just now. Raises `DatabaseUnavailable`."""
        row = self._row(run_id)
        if row is None:
            return None
        call = row.start.call
        due = row.due and round(row.due.timestamp() * 1000)
        made = round((call.expires - CALL_LIFETIME) * 1000)  # when it was to be due, at first
        return RunRecord(
            id=run_id,
            action=row.start.action.name,
            status="waiting",
            caller=call.caller,
            parent=call.parent,
            enqueued=made,
            started=None,
            ended=None,
            due=due or made,
            join=row.start.terms.join or None,
            attempt=0,
            lost=0,
            error=None,
            call=call,
        )

    def cancel(self, record: RunRecord) -> None:
        """Cancel a run that has not ended; with one that waits for a group, what of the group has
        not started. Raises `BrokerUnavailable`, and `DatabaseUnavailable` where it has to look."""
        if record.status == "waiting":
            self._in_redis(record.id)
        self._runs.cancel(record.id, record.action, Outcome.canceled(record.id))
        if record.status != "waiting":
            return
        with contextlib.suppress(DatabaseUnavailable):  # else the archiver does it
            self._outbox.drop([record.id])
        if record.join and record.call and record.call.group:
            self._cancel_group(*record.call.group)

    def signal(self, record: RunRecord, name: str, value: Any) -> Sent:
        """`Runs.signal`, also to a run that the outbox alone has.

        Raises `BrokerUnavailable`, and `DatabaseUnavailable` where it has to look.
        """
        sent = self._runs.signal(record.id, record.action, name, value)
        if sent == "ended" and record.status == "waiting":
            self._in_redis(record.id, until_due=True)
            sent = self._runs.signal(record.id, record.action, name, value)
        return sent

    def reschedule(self, record: RunRecord, due: datetime) -> bool:
        """Another time for a run that waits for its time; False if it does not (any more).

        Raises `BadRequest` for a time too far ahead, `BrokerUnavailable`, `DatabaseUnavailable`.
        """
        seconds = (due - self._clock()).total_seconds()
        if seconds > LONGEST:
            raise BadRequest(f"A run is due within {LONGEST // 86_400} days")
        if record.call is None or record.join:
            return False
        self._in_redis(record.id)
        seconds = max(seconds, 0.0)
        call = record.call.due_in(seconds)
        done = self._runs.reschedule(record, call, milliseconds(seconds))
        if done and record.action in self._actions:
            start = Start(run_id=record.id, action=self._actions[record.action], call=call)
            row = Row(start=start, due=due)
            self._outbox.reschedule(row, add=seconds > PARKED_SECONDS)
        return done

    def _row(self, run_id: str) -> Row | None:
        document = self._outbox.find(run_id)
        return self._outbox.opened(document, self._actions) if document else None

    def _in_redis(self, run_id: str, *, until_due: bool = False) -> None:
        """Give it a record, where only the outbox has it: a full queue takes what is not due.

        ``until_due``: which waits for its own time; else for one that its caller changes.
        """
        if self._runs.present([run_id]):
            return
        if row := self._row(run_id):
            start = row.at(self._clock())
            delay = max(start.terms.delay, _SOON) if until_due else _HOUR
            start = replace(start, terms=replace(start.terms, delay=delay))
            self._runs.accept_many([start], max_queue=0, result_ttl=PARKED_SECONDS)

    def _cancel_group(self, group: str, size: int) -> None:
        ids = group_runs(group, size)
        for first in range(0, size, PACKET):
            packet = ids[first : first + PACKET]
            self._outbox.drop(packet)
            actions = self._runs.actions(packet)
            self._runs.cancel_new(list(actions.items()))
