"""The history: one document per ended run, in the collection ``_runs``, for 30 days.

A run's document is inserted once and not changed. Only a run that ended retryable and was
started again has a later end, which takes the place of the earlier one.

Fields: ``_id`` (the run id), ``action``, ``status``, ``createdBy`` (null: anonymous),
``parent`` (where a run has started it),
``enqueuedAt``, ``startedAt``, ``completedAt``, ``attempts``, ``lost``, ``error`` (what the caller
was told, shortened), and sealed: ``result``, ``progress``, and for `CALLBOARD_KEEP_PARAMS` days the
``params``, without the token that the call came with. ``kept`` has of its attempts what the record
had (`callboard.runs.attempts`), ``exception`` (sealed) what the last one raised, ``steps`` (sealed)
when its steps began and ended.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from pymongo import InsertOne, ReplaceOne
from pymongo.database import Database
from pymongo.errors import BulkWriteError

from callboard import strict_json
from callboard.connections.mongodb import guarded
from callboard.errors import SealError
from callboard.runs.attempts import kept_fields
from callboard.runs.ended import EndedRun
from callboard.runs.live import Position
from callboard.runs.outcome import WORKER_LOST, Outcome
from callboard.runs.record import STATUSES, Status, readable
from callboard.runs.seal import Call, Kind, Sealer, origin_of
from callboard.runs.step_times import (
    StepTime,
    open_steps,
    reopen_steps,
    seal_steps,
    step_fields,
)
from callboard.times import from_milliseconds

__all__ = ["RUNS", "History", "PastRun"]

RUNS = "_runs"
KEPT_SECONDS = 30 * 86_400
ERROR_LENGTH = 500  # characters
READ_SECONDS = 2.5  # a request that reads is answered within 3 s, whatever the database does
WRITE_SECONDS = 5.0

_DUPLICATE = 11000
#: What a list leaves out.
_SHOWN = dict.fromkeys(("result", "progress", "params", "kept", "steps"), False)

_T = TypeVar("_T")
_LATEST = datetime(9999, 1, 1, tzinfo=UTC)

Document = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class PastRun:
    """A run as the history has it. Times are epoch milliseconds."""

    id: str
    action: str
    status: Status
    caller: str | None  # None: anonymous
    parent: str | None = None  # the run that has started it
    enqueued: int
    started: int | None
    ended: int
    attempt: int
    lost: int
    exception: str | None = None  # what the handler raised at last, for the owner alone
    error: str | None
    outcome: Outcome | None = None  # None in a list, and where no key of SECRET_KEY opens it
    progress: bytes | None = None  # JSON of {"fraction", "message"}
    params: bytes | None = field(default=None, repr=False)  # JSON; None in a list, and once dropped
    kept: Mapping[bytes, bytes] = field(default_factory=dict, repr=False)  # see `attempts_of`
    steps: Sequence[StepTime] = ()  # that it had kept


class History:
    """The ended runs of one application; ``database`` opens the connection on first use."""

    def __init__(
        self,
        database: Callable[[], Database[Document]],
        sealer: Sealer,
        *,
        keep_params: bool = False,
    ) -> None:
        self._database = database
        self._sealer = sealer
        self._keep_params = keep_params

    def find(self, run_id: str) -> PastRun | None:
        """The run with its result, or None; raises `DatabaseUnavailable`, and `SealError` for
        what Callboard never wrote."""
        with _bounded(READ_SECONDS):
            document = self._database()[RUNS].find_one({"_id": run_id})
        return None if document is None else self._past_run(document)

    def page(
        self,
        *,
        caller: str | None,
        parent: str | None = None,
        action: str | None,
        status: str | None,
        lost: bool,
        after: Position | None,
        limit: int,
    ) -> list[PastRun]:
        """Up to ``limit`` runs after a position, newest first, without their results.

        ``None`` leaves a filter out; ``lost``: only those that ended `WORKER_LOST`. Raises
        `DatabaseUnavailable`.
        """
        wanted: Document = {
            "createdBy": caller, "parent": parent, "action": action, "status": status,
        }  # fmt: skip
        wanted = {field: value for field, value in wanted.items() if value is not None}
        if lost:
            wanted |= {"error": WORKER_LOST, "status": "failed"}
        moment = _LATEST if after is None else from_milliseconds(after.enqueued)
        wanted["enqueuedAt"] = {"$lte": moment}  # also keeps out what is no time
        if after is not None:
            wanted["$or"] = [{"enqueuedAt": {"$lt": moment}}, {"_id": {"$lt": after.run_id}}]
        with _bounded(READ_SECONDS):
            found = self._newest(wanted, limit)
        return [self._row(document) for document in found]

    def _newest(self, wanted: Document, limit: int) -> list[Document]:
        """In the order of a `Position`, ties broken here: so the indexes are of one field less,
        and of the runs enqueued in one millisecond there are few."""
        runs = self._database()[RUNS]
        found = list(runs.find(wanted, _SHOWN).sort("enqueuedAt", -1).limit(limit))
        if len(found) == limit:
            last = found[-1]["enqueuedAt"]
            ties = {"$and": [wanted, {"enqueuedAt": last}]}
            found = [row for row in found if row["enqueuedAt"] != last]
            found += runs.find(ties, _SHOWN)
        found.sort(key=lambda row: (row["enqueuedAt"], str(row["_id"])), reverse=True)
        return found[:limit]

    def document(self, run: EndedRun) -> Document:
        """What is written of an ended run.

        Raises `SealError`, or whatever a value makes raise that Callboard never wrote.
        """
        values = run.values
        action, progress = values[b"action"].decode(), values.get(b"progress")
        origin = origin_of(self._sealer, run.run_id, action, values)
        outcome = self._outcome(run.run_id, action, values[b"result"])
        if progress:
            self._sealer.open("progress", run.run_id, action, progress)
        return {
            "_id": run.run_id,
            "action": action,
            "status": outcome.status,
            "createdBy": origin.caller,
            **({"parent": origin.parent} if origin.parent else {}),
            "enqueuedAt": from_milliseconds(int(values[b"enqueued"])),
            "startedAt": from_milliseconds(int(values[b"started"]))
            if b"started" in values
            else None,
            "completedAt": from_milliseconds(int(values[b"ended"])),
            "attempts": _count(values.get(b"attempt", b"0")),
            "lost": _count(values.get(b"lost", b"0")),
            "error": outcome.error and outcome.error[:ERROR_LENGTH],
            "result": values[b"result"],
            "progress": progress,
            **self._params(run.run_id, action, values.get(b"seal")),
            **self._of_attempts(run.run_id, action, values),
        }

    def _of_attempts(self, run_id: str, action: str, values: Mapping[bytes, bytes]) -> Document:
        """The fields ``kept``, ``exception`` and ``steps``, where there is something."""
        steps = [*open_steps(self._sealer, run_id, action, step_fields(values))]
        kept = {name.decode(errors="replace"): text for name, text in kept_fields(values).items()}
        known = {
            "exception": kept.pop("exception", None),
            "kept": kept,
            "steps": steps and seal_steps(self._sealer, run_id, action, steps),
        }
        return {name: value for name, value in known.items() if value}

    def _params(self, run_id: str, action: str, sealed: bytes | None) -> Document:
        """The field ``params``, if they are to be kept: empty where there are none."""
        if not self._keep_params or not sealed:
            return {}
        params = Call.from_json(self._sealer.open("call", run_id, action, sealed)).params
        text = strict_json.dumps(params)
        return {"params": self._sealer.seal("params", run_id, action, text) if params else b""}

    def drop_params(self, since: datetime, until: datetime) -> None:
        """Forget what the runs that were enqueued then were called with.

        Raises `DatabaseUnavailable`.
        """
        then = {"enqueuedAt": {"$gte": since, "$lt": until}, "params": {"$exists": True}}
        with _bounded(WRITE_SECONDS):
            self._database()[RUNS].update_many(then, {"$unset": {"params": ""}})

    def write(self, documents: Sequence[Document], again: frozenset[str]) -> None:
        """Have each document in the history; one that is there already stays.

        ``again``: the ids of runs that were started again, whose later end counts. Raises
        `DatabaseUnavailable`; what was written until then stays, and may be written again.
        """
        writes = [_write(document, document["_id"] in again) for document in documents]
        with _bounded(WRITE_SECONDS), _ignoring_duplicates():
            self._database()[RUNS].bulk_write(writes, ordered=False)

    def prepare(self) -> None:
        """Make the indexes; harmless if they are there. Raises `DatabaseUnavailable`."""
        runs = self._database()[RUNS]
        with _bounded(WRITE_SECONDS):
            runs.create_index("enqueuedAt", expireAfterSeconds=KEPT_SECONDS)
            runs.create_index([("createdBy", 1), ("enqueuedAt", -1)])
            runs.create_index([("action", 1), ("enqueuedAt", -1)])
            started = {"parent": {"$exists": True}}
            runs.create_index([("parent", 1), ("enqueuedAt", -1)], partialFilterExpression=started)
            failed = {"status": "failed"}  # few, and what people look for
            runs.create_index([("status", 1), ("enqueuedAt", -1)], partialFilterExpression=failed)

    def _row(self, document: Mapping[str, Any]) -> PastRun:
        """A run in a list; one that cannot be read says so in its row, and costs no other."""
        try:
            return self._past_run(document)
        except SealError as error:
            enqueued = _milliseconds(document["enqueuedAt"])
            return PastRun(
                id=str(document["_id"]),
                action="",
                status="failed",
                caller=None,
                enqueued=enqueued,
                started=None,
                ended=enqueued,
                attempt=0,
                lost=0,
                error=str(error),
            )

    def _past_run(self, document: Mapping[str, Any]) -> PastRun:
        with readable(str(document["_id"])):
            return self._opened_run(document)

    def _opened_run(self, document: Mapping[str, Any]) -> PastRun:
        run_id, action = _of(str, document["_id"]), _of(str, document["action"])
        started, caller, error = (document[name] for name in ("startedAt", "createdBy", "error"))
        opened = self._opened("result", run_id, action, document.get("result"))
        raised = self._opened("exception", run_id, action, document.get("exception"))
        return PastRun(
            id=run_id,
            action=action,
            status=STATUSES[document["status"]],
            caller=None if caller is None else _of(str, caller),
            parent=parent if isinstance(parent := document.get("parent"), str) else None,
            enqueued=_milliseconds(document["enqueuedAt"]),
            started=None if started is None else _milliseconds(started),
            ended=_milliseconds(document["completedAt"]),
            attempt=_of(int, document["attempts"]),
            lost=_of(int, document["lost"]),
            exception=raised.decode() if raised else None,
            error=None if error is None else _of(str, error),
            outcome=Outcome.from_bytes(opened) if opened else None,
            progress=self._opened("progress", run_id, action, document.get("progress")),
            params=self._opened_params(run_id, action, document.get("params")),
            kept={name.encode(): bytes(text) for name, text in document.get("kept", {}).items()},
            steps=reopen_steps(self._sealer, run_id, action, document.get("steps")),
        )

    def _opened_params(self, run_id: str, action: str, sealed: bytes | None) -> bytes | None:
        return b"{}" if sealed == b"" else self._opened("params", run_id, action, sealed)

    def _outcome(self, run_id: str, action: str, sealed: bytes) -> Outcome:
        return Outcome.from_bytes(self._sealer.open("result", run_id, action, sealed))

    def _opened(self, kind: Kind, run_id: str, action: str, sealed: bytes | None) -> bytes | None:
        """None for what SECRET_KEY no longer has the key of."""
        with contextlib.suppress(SealError):
            return self._sealer.open(kind, run_id, action, _of(bytes, sealed)) if sealed else None
        return None


def _write(document: Document, again: bool) -> InsertOne[Document] | ReplaceOne[Document]:
    if not again:
        return InsertOne(document)
    earlier = {"_id": document["_id"], "completedAt": {"$lt": document["completedAt"]}}
    return ReplaceOne(earlier, document, upsert=True)


@contextlib.contextmanager
def _ignoring_duplicates() -> Iterator[None]:
    try:
        yield
    except BulkWriteError as error:
        written = error.details.get("writeErrors", [])
        late = error.details.get("writeConcernErrors")
        if late or any(row["code"] != _DUPLICATE for row in written):
            raise


def _bounded(seconds: float) -> AbstractContextManager[None]:
    return guarded(seconds, "run history")


def _count(text: bytes) -> int:
    if len(text) > 9:  # not one of ours, and perhaps too large for the database
        raise ValueError("not a count")
    return int(text)


def _of(kind: type[_T], value: object) -> _T:
    """The value; raises TypeError if it is of another kind."""
    if not isinstance(value, kind):
        raise TypeError(f"not {kind.__name__}")
    return value


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
