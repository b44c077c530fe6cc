"""The outbox: starts that MongoDB keeps, in the collection ``_outbox``, until Redis has their runs.

A start is a row here, besides or before its record in Redis, where it

- is written in a transaction: the row commits with the transaction, or is rolled back with it
- is due in more than an hour: it survives the loss of Redis
- has met a full queue.

Whoever has committed publishes at once; what is left over, a worker does within seconds
(`worker.outbox.publisher`). Publishing is `Runs.accept`, so doing it twice changes nothing: the
row's id is the run's. A run that has neither a record nor an end in the history is one that Redis
has lost, or never had.

Fields: ``_id`` (the run id), ``action``, ``call`` (sealed), ``due`` (absent: at once), ``next``
(when to look at the row again), and where there are: ``group``, ``join``, ``size``,
``idempotency`` (key and digest). A row leaves once its run is due and known, or has ended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo import UpdateOne

from callboard.connections.mongodb import (
    AnySession,
    Document,
    guarded,
)
from callboard.errors import KeyReused, RunRefused, SealError
from callboard.runs.commands import Accepted
from callboard.runs.history import RUNS
from callboard.runs.record import readable
from callboard.runs.rows import PlainRows, Rows, of_kind
from callboard.runs.seal import Call, Sealer
from callboard.runs.start import Start, Terms, milliseconds
from callboard.sans_io import Steps, awaited, plain
from callboard.sdk.action import Action

__all__ = ["OUTBOX", "AsyncOutbox", "Outbox", "Row", "is_elsewhere"]

OUTBOX = "_outbox"
SECONDS = 5.0  # that the database may take for a batch
AT_ONCE = datetime(1970, 1, 1, tzinfo=UTC)  # by whatever clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A start as the outbox keeps it."""

    start: Start
    due: datetime | None = None  # by the database's clock; None: at once

    def at(self, now: datetime) -> Start:
        """The start as it is to be published at this moment."""
        if self.due is None:
            return self.start
        delay = milliseconds(max(self.due - now, timedelta()).total_seconds())
        return replace(self.start, terms=replace(self.start.terms, delay=delay))

    def document(self, sealer: Sealer) -> Document:
        """As it is written."""
        start, terms = self.start, self.start.terms
        name = start.action.name
        known: Document = {
            "due": self.due,
            "group": terms.group,
            "join": terms.join,
            "size": terms.size,
            "idempotency": start.idempotency and list(start.idempotency),
        }
        return {
            "action": name,
            "call": sealer.seal("call", start.run_id, name, start.call.to_json()),
            "next": AT_ONCE,
            **{field: value for field, value in known.items() if value},
        }

    @classmethod
    def of(cls, document: Mapping[str, Any], actions: Mapping[str, Action], sealer: Sealer) -> Row:
        """From its document; ``actions``: the application's, by name. Raises `SealError` for what
        is for none of them, no key opens, or Callboard never wrote."""
        run_id = str(document["_id"])
        with readable(run_id):
            action = actions[document["action"]]
            text = sealer.open("call", run_id, action.name, of_kind(bytes, document["call"]))
            key, due = document.get("idempotency"), document.get("due")
            terms = Terms(
                group=of_kind(str, document.get("group", "")),
                join=of_kind(str, document.get("join", "")),
                size=of_kind(int, document.get("size", 0)),
            )
            return cls(
                start=Start(
                    run_id=run_id,
                    action=action,
                    call=Call.from_json(text),
                    terms=terms,
                    idempotency=(of_kind(str, key[0]), of_kind(str, key[1])) if key else None,
                ),
                due=None if due is None else of_kind(datetime, due),
            )


class _Rows(Rows):
    """The rows, for plain and for async callers. Every method raises `DatabaseUnavailable`."""

    collection = OUTBOX
    seconds = SECONDS

    def _put(self, rows: Sequence[Row], session: AnySession = None) -> Steps[None]:
        """Have these rows; one that is there already stays. ``session``: of a transaction, whose
        caller judges what the database answers."""
        writes = [
            UpdateOne(
                {"_id": row.start.run_id},
                {"$setOnInsert": row.document(self._sealer)},
                upsert=True,
            )
            for row in rows
        ]
        if session is not None:
            yield self._rows.bulk_write(writes, ordered=False, session=session)
            return
        with guarded(SECONDS):
            yield self._rows.bulk_write(writes, ordered=False)

    def _drop(self, run_ids: Sequence[str]) -> Steps[None]:
        """Forget these rows."""
        if run_ids:
            with guarded(SECONDS):
                yield self._rows.delete_many({"_id": {"$in": list(run_ids)}})

    def _postpone(self, until: Mapping[str, datetime]) -> Steps[None]:
        """Look at each of these again at its time."""
        if until:
            changes = [
                UpdateOne({"_id": run_id}, {"$set": {"next": moment}})
                for run_id, moment in until.items()
            ]
            with guarded(SECONDS):
                yield self._rows.bulk_write(changes, ordered=False)

    def _has(self, run_id: str) -> Steps[bool]:
        """Whether there is a row for this run."""
        with guarded(SECONDS):
            return (yield self._rows.find_one({"_id": run_id}, {"_id": 1})) is not None

    def _ended(self, run_ids: Sequence[str]) -> Steps[set[str]]:
        """Those of the runs whose end is in the history."""
        if not run_ids:
            return set()
        with guarded(SECONDS):
            found = (
                yield self._of()[RUNS].find({"_id": {"$in": list(run_ids)}}, {"_id": 1}).to_list()
            )
        return {str(document["_id"]) for document in found}


class AsyncOutbox(_Rows):
    """The rows, for an event loop."""

    put = awaited(_Rows._put)
    drop = awaited(_Rows._drop)
    postpone = awaited(_Rows._postpone)
    ended = awaited(_Rows._ended)
    has = awaited(_Rows._has)


class Outbox(_Rows, PlainRows):
    """The rows of one application."""

    put = plain(_Rows._put)
    drop = plain(_Rows._drop)
    postpone = plain(_Rows._postpone)
    ended = plain(_Rows._ended)
    has = plain(_Rows._has)

    def prepare(self) -> None:
        """Make the index; harmless if it is there."""
        with guarded(SECONDS):
            self._plain.create_index("next")

    def waiting(self, now: datetime, limit: int) -> list[Document]:
        """The rows whose time to be looked at has come, the earliest first."""
        with guarded(SECONDS):
            # an id that is no text is not ours
            rows = self._plain.find({"next": {"$lte": now}, "_id": {"$gt": ""}})
            return rows.sort("next", 1).limit(limit).to_list()

    def reschedule(self, row: Row, *, add: bool) -> None:
        """Another time for its run; ``add``: also where there is no row yet."""
        with guarded(SECONDS):
            self._plain.update_one(
                {"_id": row.start.run_id}, {"$set": row.document(self._sealer)}, upsert=add
            )

    def opened(self, document: Mapping[str, Any], actions: Mapping[str, Action]) -> Row | None:
        """The row; None for one that cannot be read here."""
        try:
            return Row.of(document, actions, self._sealer)
        except SealError:
            return None


def is_elsewhere(run_id: str, answer: Accepted | RunRefused | None) -> bool:
    """Whether a start, by what `Runs.accept` answered, never becomes a run of its own: its key led
    to another one, or was used with other params."""
    if isinstance(answer, Accepted):
        return answer.run_id != run_id
    return isinstance(answer, KeyReused)
