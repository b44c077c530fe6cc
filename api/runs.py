"""``/api/runs``: what became of a run."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, Response, request, stream_with_context

from api.calls import identify
from api.errors import envelope
from api.identity import Identity
from api.preferences import whole_seconds
from api.services import services
from callboard.outcome import Outcome
from callboard.runs import RunRecord

__all__ = ["runs"]

KEEP_ALIVE_SECONDS = 15.0  # between two lines of a silent event stream

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


@runs.post("/api/runs/<run_id>/cancel")
def cancel(run_id: str) -> Response:
    """Cancel a run: a queued one never starts, a running one is stopped, an ended one stays."""
    identity = identify()
    record = services().visible_run(run_id, identity)
    outcome = Outcome.canceled(run_id)
    services().runs.cancel(run_id, record.action, outcome, record.call.reply)
    return envelope(
        {"success": True, "data": _shown(services().visible_run(run_id, identity))}, 200
    )


@runs.get("/api/runs/<run_id>/events")
def events(run_id: str) -> Response:
    """Server-sent events: the run at each change of status or progress, until its end."""
    identity = identify()
    record = services().visible_run(run_id, identity)
    stream = stream_with_context(_events(record, identity))
    return Response(stream, mimetype="text/event-stream", headers={"Cache-Control": "no-store"})


def _events(record: RunRecord, identity: Identity | None) -> Iterator[str]:
    at_hand = services()
    with at_hand.replies.expect(record.id) as waiter:
        at_hand.runs.watch(record.id, at_hand.replies.channel)
        told: dict[str, Any] = {}
        while True:
            record = at_hand.visible_run(record.id, identity)
            shown = _shown(record)
            if shown != told:
                kind = "progress" if told.get("status") == shown["status"] else "status"
                yield f"event: {kind}\ndata: {json.dumps(shown)}\n\n"
                told = shown
            if record.outcome is not None:
                return
            if not waiter.wait(KEEP_ALIVE_SECONDS):
                yield ": still running\n\n"


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
