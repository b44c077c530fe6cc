"""A run's record, opened: what its fields say, or that it cannot be read."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard, get_args

from callboard import strict_json
from callboard.errors import NewerFormat, SealError
from callboard.runs.format import newer
from callboard.runs.outcome import Outcome
from callboard.runs.report import open_exception
from callboard.runs.seal import Call, Sealer, origin_of

__all__ = [
    "RECORD",
    "ROW",
    "STATUSES",
    "RunRecord",
    "Status",
    "is_run_id",
    "known",
    "open_record",
    "open_result",
    "open_row",
    "readable",
    "unreadable",
]

_RUN_ID = re.compile(r"[0-9a-f-]{36}")

Status = Literal["queued", "waiting", "running", "succeeded", "failed", "canceled"]

STATUSES: dict[str, Status] = {status: status for status in get_args(Status)}
ROW = (
    *(b"action", b"status", b"origin", b"enqueued", b"started", b"ended"),
    *(b"attempt", b"lost", b"error", b"v", b"due", b"join", b"waiting", b"exception"),
)  # of a record, what a list shows
RECORD = (*ROW, b"result", b"progress", b"seal")
"""What is read of a record to show it: not its steps and signals, which may be many and large."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A run as it stands, opened. Times are epoch milliseconds. A row of a list has no more than
    the fields up to ``error``."""

    id: str
    action: str
    status: Status
    caller: str | None  # who asked for it; None for an anonymous caller
    parent: str | None = None  # the run that has started it
    acceptance: str | None = None  # of a scheduled run: tells its record from an earlier one's
    enqueued: int
    started: int | None
    ended: int | None
    due: int | None = None  # when it is to be queued, while it waits for its time
    join: str | None = None  # the group whose end it waits, or has waited, for
    waiting: Mapping[str, str] | None = None  # for what: kind and, if its handler waits, name
    attempt: int
    lost: int
    exception: str | None = None  # what the handler raised at last, for the owner alone
    error: str | None  # why it failed, as its caller is told; None while it has not
    outcome: Outcome | None = None  # set once the run has ended
    progress: bytes | None = None  # JSON of {"fraction", "message"}
    call: Call | None = None  # what it was called with, as long as it may (start again)

    @property
    def waiting_for(self) -> dict[str, str | int] | None:
        """``{"kind": "group"}`` or ``{"kind": "slot"}``, or ``{"kind": "time" or "signal", "name",
        "until": epoch ms}``, the name if its handler waits; None: it does not."""
        if self.status != "waiting":
            return None
        if self.waiting:
            return {**self.waiting, "until": self.due} if self.due else dict(self.waiting)
        in_group = self.join and self.started is None  # once started, it may be tried again
        return {"kind": "group"} if in_group else {"kind": "time", "until": self.due or 0}


def open_record(sealer: Sealer, run_id: str, values: Mapping[bytes, bytes]) -> RunRecord:
    """The whole record; raises `SealError` for one that cannot be read, and `NewerFormat`."""
    known(run_id, values)
    with readable(run_id):
        action = values[b"action"].decode()
        result, progress, call = (values.get(name) for name in (b"result", b"progress", b"seal"))
        outcome = open_result(sealer, run_id, action, result) if result else None
        return RunRecord(
            **_common(sealer, run_id, action, values),
            error=outcome.error if outcome else None,
            outcome=outcome,
            progress=sealer.open("progress", run_id, action, progress) if progress else None,
            call=Call.from_json(sealer.open("call", run_id, action, call)) if call else None,
        )


def open_row(sealer: Sealer, run_id: str, values: Mapping[bytes, bytes]) -> RunRecord:
    """What a list shows of it: the fields of `ROW`; raises as `open_record`."""
    known(run_id, values)
    with readable(run_id):
        action, error = values[b"action"].decode(), values[b"error"]
        text = sealer.open("error", run_id, action, error).decode() if error else None
        return RunRecord(**_common(sealer, run_id, action, values), error=text)


def open_result(sealer: Sealer, run_id: str, action: str, sealed: bytes) -> Outcome:
    """A sealed result, as it came in a reply or stands in the record."""
    return Outcome.from_bytes(sealer.open("result", run_id, action, sealed))


def _common(
    sealer: Sealer, run_id: str, action: str, values: Mapping[bytes, bytes]
) -> dict[str, Any]:
    """What rows and whole records have."""
    origin = origin_of(sealer, run_id, action, values)
    enqueued, join = _number(values[b"enqueued"]), values.get(b"join")
    waiting = values.get(b"waiting")
    if enqueued is None:
        raise ValueError("no time of enqueuing")
    return {
        "id": run_id,
        "action": action,
        "status": STATUSES[values[b"status"].decode()],
        "caller": origin.caller,
        "acceptance": origin.acceptance,
        "parent": origin.parent,
        "exception": open_exception(sealer, run_id, action, values.get(b"exception")),
        "enqueued": enqueued,
        "started": _number(values.get(b"started")),
        "ended": _number(values.get(b"ended")),
        "due": _number(values.get(b"due")),
        "join": join.decode() if join else None,
        "waiting": _waiting(waiting) if waiting else None,
        "attempt": _number(values.get(b"attempt")) or 0,
        "lost": _number(values.get(b"lost")) or 0,
    }


def _waiting(text: bytes) -> dict[str, str]:
    """What a handler waits for, or a run of a limit; raises ValueError, AttributeError or KeyError
    for what is not ours."""
    found = strict_json.loads(text)
    name = {"name": str(found["name"])} if found.get("kind") != "slot" else {}
    return {"kind": str(found["kind"]), **name}


@contextlib.contextmanager
def readable(run_id: str) -> Iterator[None]:
    """Whatever is found in it that Callboard never wrote makes a run one that cannot be read:
    `SealError`."""
    try:
        yield
    except (
        *(SealError, LookupError, ValueError, TypeError),
        *(AttributeError, OverflowError, RecursionError),
    ) as error:
        raise SealError(unreadable(run_id)) from error


def known(run_id: str, values: Mapping[bytes, bytes | None]) -> None:
    """Raises `NewerFormat` for a record of a version that is not known here."""
    if version := newer(values.get(b"v")):
        raise NewerFormat(
            f"Run {run_id} was written by a newer version of Callboard (format {version}). "
            "Ask again once this server is upgraded, too."
        )


def unreadable(run_id: str) -> str:
    """What is said of a run whose record, or a part of it, does not open."""
    return (
        f"Run {run_id} can no longer be read: no key of SECRET_KEY opens it, or it was altered. "
        "Put the key that it was sealed with back into SECRET_KEY, or call the action again."
    )


def _number(value: bytes | None) -> int | None:
    """A count or a time (epoch milliseconds); raises ValueError for what is neither."""
    if value is None:
        return None
    if len(value) > 14 or not value.isdigit():
        raise ValueError("no number of ours")
    return int(value)


def is_run_id(text: object) -> TypeGuard[str]:
    """Whether it has the form of a run's id."""
    return isinstance(text, str) and _RUN_ID.fullmatch(text) is not None
