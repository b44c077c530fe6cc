"""How runs look in responses: one whole, or as a row of the list."""

from __future__ import annotations

from typing import Any

from callboard import strict_json
from callboard.errors import SealError
from callboard.runs.history import PastRun
from callboard.runs.record import RunRecord, unreadable
from callboard.times import from_milliseconds, iso

__all__ = ["listed", "moment", "shown"]


def shown(run: RunRecord | PastRun) -> dict[str, Any]:
    """A run with its result, wherever it is kept."""
    return {
        **_common(run),
        **({"parent": run.parent} if run.parent else {}),
        "result": run.outcome.envelope() if run.outcome else _no_result(run),
        "progress": run.progress and strict_json.loads(run.progress),
    }


def _no_result(run: RunRecord | PastRun) -> dict[str, Any] | None:
    """That it cannot be read any more, where there was one."""
    if run.ended is None:
        return None
    error, code = unreadable(run.id), SealError.code
    return {"success": False, "error": error, "code": code, "runId": run.id}


def listed(run: RunRecord | PastRun) -> dict[str, Any]:
    """A row: why the run failed and how often its workers died, but no result."""
    return {**_common(run), "error": run.error, "lost": run.lost}


def _common(run: RunRecord | PastRun) -> dict[str, Any]:
    return {
        "runId": run.id,
        "action": run.action,
        "status": run.status,
        **_waiting(run),
        "attempts": run.attempt,
        "enqueuedAt": moment(run.enqueued),
        "startedAt": moment(run.started),
        "completedAt": moment(run.ended),
        "createdBy": run.caller,
    }


def _waiting(run: RunRecord | PastRun) -> dict[str, Any]:
    """What a run waits for: for its time, the runs of a group, or a slot of its limit."""
    waiting = run.waiting_for if isinstance(run, RunRecord) else None
    if waiting is None:
        return {}
    if "until" in waiting:
        waiting["until"] = moment(int(waiting["until"])) or ""
    return {"waitingFor": waiting}


def moment(milliseconds: int | None) -> str | None:
    """A time, as the API writes it."""
    if milliseconds is None:
        return None
    return iso(from_milliseconds(milliseconds))
