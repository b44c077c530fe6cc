"""``/api/runs``: what became of a run."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, Response, request

from api.calls import identify
from api.errors import envelope
from api.preferences import whole_seconds
from api.services import services
from callboard.runs import RunRecord

__all__ = ["runs"]

runs = Blueprint("runs", __name__)


@runs.get("/api/runs/<run_id>")
def show(run_id: str) -> Response:
    """One run, at once or (``?wait=N``) when it has ended or N seconds are over."""
    identity = identify()
    record = services().visible_run(run_id, identity)
    wait = whole_seconds("wait", request.args.get("wait", "0"))
    if wait and record.outcome is None:
        deadline = time.monotonic() + min(wait, services().settings.max_wait)
        services().wait_for_end(run_id, deadline)
        record = services().visible_run(run_id, identity)
    return envelope({"success": True, "data": _shown(record)}, 200)


def _shown(record: RunRecord) -> dict[str, Any]:
    return {
        "runId": record.id,
        "action": record.action,
        "status": record.status,
        "result": record.outcome and record.outcome.envelope(),
        "progress": record.progress and json.loads(record.progress),
        "attempts": record.attempt,
        "enqueuedAt": _iso(record.enqueued),
        "startedAt": _iso(record.started),
        "completedAt": _iso(record.ended),
        "createdBy": record.call.caller,
    }


def _iso(milliseconds: int | None) -> str | None:
    if milliseconds is None:
        return None
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
