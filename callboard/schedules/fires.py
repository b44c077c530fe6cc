"""The fires: one row per planned time of a schedule, in the collection ``_fires``.

A row exists before its run does, so no two beats plan one fire twice, and it outlives the run's
record, so the loss of Redis repeats nothing. It is open until its run has ended::

    inserted ── published ── taken by a worker ── closed: succeeded, failed, canceled, lost
    inserted closed: missed, skipped

Fields: ``_id`` (the run id), ``schedule``, ``manual``, ``plannedAt``, ``createdAt``,
``publishedAt``, ``acceptance`` (which run record may run it), ``startedAt``, ``completedAt``,
``outcome``, ``attempts``, and ``open`` (true, or absent). Kept 30 days, or 1,000 per schedule.
Those of a stored schedule have ``action`` and ``lookAt`` as well: when a beat is to look at it.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from pymongo.database import Database
from pymongo.errors import BulkWriteError

from callboard.connections.mongodb import AnyCollection, AnyDatabase, Document, guarded
from callboard.sans_io import Steps, awaited, plain

__all__ = [
    "FIRES",
    "KEPT_ROWS",
    "AsyncFires",
    "Fire",
    "FireOutcome",
    "Fires",
    "fire_id",
    "insert_new",
]

FIRES = "_fires"
KEPT_SECONDS = 30 * 86_400
KEPT_ROWS = 1_000  # per schedule
SECONDS = 10.0  # that the database may take for a batch
_DUPLICATE = 11000
_IDS = uuid.UUID("f9b7c1de-4ce5-5f0b-a5a4-64a1b8a0c6c1")  # the namespace of fires' run ids

FireOutcome = Literal["succeeded", "failed", "canceled", "lost", "missed", "skipped"]


def fire_id(schedule: str, planned: datetime) -> str:
    """The run id of a schedule's fire: the same for every beat that plans it."""
    return str(uuid.uuid5(_IDS, f"{schedule} {planned.astimezone(UTC).isoformat()}"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fire:
    """One planned time of a schedule, or one that a person triggered."""

    run_id: str
    schedule: str
    planned: datetime  # UTC; when it was triggered, for a manual one
    created: datetime
    manual: bool = False
    published: datetime | None = None
    started: datetime | None = None
    completed: datetime | None = None
    #: None: open. lost: its run left no trace; missed: no beat ran; skipped: the last run did
    outcome: FireOutcome | None = None
    attempts: int = 0
    action: str | None = None  # of a stored schedule; None: the schedule is declared
    look_at: datetime | None = None  # when a beat is to look at it, of a stored one

    @property
    def ran(self) -> bool:
        """Whether there is, or was, a run of it."""
        return self.outcome not in ("missed", "skipped")

    def document(self) -> Document:
        """As it is inserted; what is not known yet is left out."""
        known = {
            "publishedAt": self.published,
            "startedAt": self.started,
            "completedAt": self.completed,
            "outcome": self.outcome,
            "open": self.outcome is None or None,
            "action": self.action,
            "lookAt": self.look_at if self.outcome is None else None,
        }
        return {
            "_id": self.run_id,
            "schedule": self.schedule,
            "plannedAt": self.planned,
            "createdAt": self.created,
            "manual": self.manual,
            "attempts": self.attempts,
            **{name: value for name, value in known.items() if value is not None},
        }

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Fire:
        """From its row."""
        return cls(
            run_id=document["_id"],
            schedule=document["schedule"],
            planned=document["plannedAt"],
            created=document["createdAt"],
            manual=document["manual"],
            published=document.get("publishedAt"),
            started=document.get("startedAt"),
            completed=document.get("completedAt"),
            outcome=document.get("outcome"),
            attempts=document["attempts"],
            action=document.get("action"),
            look_at=document.get("lookAt"),
        )


class _Rows:
    """What a worker does with the row of its run, for plain and for async handlers."""

    def __init__(self, database: Callable[[], AnyDatabase]) -> None:
        self._of = database

    @property
    def _rows(self) -> AnyCollection:
        return self._of()[FIRES]

    def _take(
        self, run_id: str, acceptance: str, attempt: int, moment: datetime
    ) -> Steps[Fire | None]:
        """Let the run of this acceptance start; None if the fire has had its run.

        Returns the fire as it stood before: its first start is the one that finds none.

        A fire belongs to the first acceptance that takes it, for all its attempts. So when
        Redis forgets a run and the fire is published again, at most one of the two runs.
        """
        mine = [{"acceptance": acceptance}, {"open": True, "acceptance": {"$exists": False}}]
        change = {
            "$set": {"acceptance": acceptance, "open": True, "attempts": attempt},
            "$min": {"publishedAt": moment, "startedAt": moment},  # sets what is not set
            "$unset": {"outcome": "", "completedAt": ""},  # of an end that was retried
        }
        with guarded():
            before = yield self._rows.find_one_and_update({"_id": run_id, "$or": mine}, change)
        return Fire.of(before) if before else None

    def _close(
        self,
        run_id: str,
        outcome: FireOutcome,
        *,
        completed: datetime,
        attempts: int,
        started: datetime | None = None,
        acceptance: str | None = None,
    ) -> Steps[None]:
        """The fire's run has ended. A fire that is closed, or another acceptance's, stays."""
        wanted: Document = {"_id": run_id, "open": True}
        change: Document = {
            "$set": {"outcome": outcome, "completedAt": completed, "attempts": attempts},
            "$unset": {"open": ""},
            "$min": {"publishedAt": completed},
        }
        if started is not None:
            change["$min"]["startedAt"] = started
        if acceptance is not None:
            wanted["acceptance"] = {"$in": [acceptance, None]}
            change["$set"]["acceptance"] = acceptance
        with guarded():
            yield self._rows.update_one(wanted, change)


class AsyncFires(_Rows):
    """The rows, for a worker's event loop. Every method raises `DatabaseUnavailable`."""

    take = awaited(_Rows._take)
    close = awaited(_Rows._close)


class Fires(_Rows):
    """The rows of one application. Every method raises `DatabaseUnavailable`."""

    take = plain(_Rows._take)
    close = plain(_Rows._close)

    def __init__(self, database: Callable[[], Database[Document]]) -> None:
        super().__init__(database)
        self._database = database

    def prepare(self) -> None:
        """Make the indexes; harmless if they are there."""
        with guarded():
            rows = self._database()[FIRES]
            rows.create_index("createdAt", expireAfterSeconds=KEPT_SECONDS)
            rows.create_index([("schedule", 1), ("plannedAt", -1)])
            rows.create_index("open", partialFilterExpression={"open": True})
            rows.create_index("lookAt", partialFilterExpression={"open": True})

    def insert(self, fire: Fire) -> None:
        """Add one row."""
        with guarded():
            self._database()[FIRES].insert_one(fire.document())

    def withdraw(self, run_id: str) -> None:
        """Take a row back whose run was refused; a worker that got it nevertheless drops it."""
        with guarded():
            self._database()[FIRES].delete_one({"_id": run_id})

    def open(self) -> list[Fire]:
        """Every open fire of a declared schedule, in planned order."""
        declared = {"open": True, "action": None}
        with guarded():
            return [
                Fire.of(document)
                for document in self._database()[FIRES].find(declared).sort("plannedAt", 1)
            ]

    def left(self, now: datetime, limit: int) -> list[Fire]:
        """The open fires of stored schedules that are to be looked at."""
        wanted = {"open": True, "lookAt": {"$lte": now}}
        with guarded(SECONDS):
            rows = self._database()[FIRES].find(wanted).limit(limit)
            return [Fire.of(document) for document in rows]

    def busy(self, schedules: Sequence[str]) -> set[str]:
        """Those of the schedules that have an open fire."""
        wanted = {"schedule": {"$in": list(schedules)}, "open": True}
        with guarded(SECONDS):
            rows = self._database()[FIRES].find(wanted, {"schedule": True})
            return {document["schedule"] for document in rows}

    def insert_new(self, fires: Sequence[Fire]) -> list[Fire]:
        """Insert the rows of these; those that had none."""
        with guarded(SECONDS):
            return insert_new(self._database()[FIRES], fires)

    def look_again(self, run_ids: Collection[str], moment: datetime) -> None:
        """Look at these, which are open, no earlier."""
        if run_ids:
            change = {"$set": {"lookAt": moment}}
            with guarded(SECONDS):
                self._database()[FIRES].update_many({"_id": {"$in": list(run_ids)}}, change)

    def history(self, schedule: str, limit: int) -> list[Fire]:
        """The last fires of a schedule, newest first."""
        with guarded():
            newest = self._database()[FIRES].find({"schedule": schedule}).sort("plannedAt", -1)
            return [Fire.of(document) for document in newest.limit(limit)]

    def mark_published(self, run_id: str, moment: datetime) -> None:
        """The run exists."""
        with guarded():
            self._database()[FIRES].update_one({"_id": run_id}, {"$min": {"publishedAt": moment}})

    def prune(self, schedule: str, kept: int = KEPT_ROWS) -> None:
        """Delete what is beyond the newest rows that are kept."""
        with guarded():
            rows = self._database()[FIRES]
            newest = rows.find({"schedule": schedule}, {"plannedAt": True}).sort("plannedAt", -1)
            oldest_kept = next(newest.skip(kept - 1).limit(1), None)
            if oldest_kept is not None:
                beyond = {"plannedAt": {"$lt": oldest_kept["plannedAt"]}, "open": None}
                rows.delete_many({"schedule": schedule, **beyond})


def insert_new(collection: Any, fires: Sequence[Fire]) -> list[Fire]:
    """Insert their rows into ``_fires``, in one command; those that had none."""
    if not fires:
        return []
    taken: set[int] = set()
    try:
        collection.insert_many([fire.document() for fire in fires], ordered=False)
    except BulkWriteError as error:
        refused, late = error.details["writeErrors"], error.details.get("writeConcernErrors")
        if late or any(row["code"] != _DUPLICATE for row in refused):
            raise
        taken = {row["index"] for row in refused}  # another beat was faster
    return [fire for index, fire in enumerate(fires) if index not in taken]
