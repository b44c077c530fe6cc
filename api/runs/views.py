"""``/api/runs``: what became of a run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from datetime import timedelta
from typing import Any

from flask import Blueprint, Response, request

from callboard import strict_json
from callboard.clock import DatabaseClock
from callboard.errors import BadRequest, NotWaiting, ServiceUnavailable
from callboard.runs.history import PastRun
from callboard.runs.record import RunRecord

from ..call.calls import identify, read_object, started
from ..call.due import Due, due_of
from ..call.later import place_one
from ..call.limits import network
from ..errors import envelope
from ..identity.tokens import Identity
from ..numbers import whole_seconds
from ..services import current_services, this_request
from .again import not_so_ended, replayed, retry as start_again
from .view import shown
from .watching import Watching

__all__ = ["runs"]

_WAITS = {
    "group": "waits for other runs",
    "slot": "waits for a slot of its limit",
    "signal": "waits for a signal",
}
_STARTED = "has started before, and waits to go on"

runs = Blueprint("runs", __name__)


@runs.get("/api/runs/<run_id>")
def show(run_id: str) -> Response:
    """One run, at once or (``?wait=N``) when it has ended or N seconds are over."""
    identity = identify()
    run = current_services().visible_run(run_id, identity)
    wait = whole_seconds("wait", request.args.get("wait", "0"))
    if wait and run.ended is None:
        deadline = time.monotonic() + min(wait, current_services().settings.max_wait)
        with current_services().watching.waits.taken_by(_who(identity)):
            run = current_services().wait_for_end(run_id, deadline) or run
    return _answer(run)


@runs.post("/api/runs/<run_id>/cancel")
def cancel(run_id: str) -> Response:
    """Cancel a run: a queued one never starts, a running one is stopped, an ended one stays."""
    identity = identify()
    run = current_services().visible_run(run_id, identity)
    if isinstance(run, RunRecord):
        current_services().waiting.cancel(run)
        run = current_services().visible_run(run_id, identity)
    return _answer(run)


@runs.post("/api/runs/<run_id>/retry")
def retry(run_id: str) -> Response:
    """Start a run that ended `Worker lost`, or else retryable, again under its id; owner only."""
    identity = identify()
    services = current_services()
    services.require_owner(identity)
    if not start_again(services, services.visible_run(run_id, identity)):
        raise not_so_ended(services.visible_run(run_id, identity))
    return _answer(services.visible_run(run_id, identity))


@runs.post("/api/runs/<run_id>/replay")
def replay(run_id: str) -> Response:
    """Start a new run of the same call, or with other ``{"params"}``: 202; owner only."""
    identity = identify()
    services = current_services()
    services.require_owner(identity)
    run = services.visible_run(run_id, identity)
    params = _read_params(read_object(this_request(), strict_json.MAX_DEPTH + 1))
    services.limit_rate(identity, "calls")
    accepted = place_one(services, replayed(services, run, params))
    return started(services, accepted.run_id)


def _read_params(body: dict[str, Any]) -> dict[str, Any] | None:
    if unknown := body.keys() - {"params"}:
        raise BadRequest(f"The body takes params, not {min(unknown)[:40]!r}")
    if not isinstance(params := body.get("params", {}), dict):
        raise BadRequest("params must be a JSON object, such as {}")
    return params if "params" in body else None


@runs.post("/api/runs/<run_id>/reschedule")
def reschedule(run_id: str) -> Response:
    """Give a run that waits for its time another: ``{"delay": seconds}`` or ``{"at": time}``."""
    identity = identify()
    services = current_services()
    run = services.visible_run(run_id, identity)
    due = _read_due(read_object(this_request()))
    clock = DatabaseClock(services.store.database).passed
    seconds = due.seconds(clock)
    if seconds < 0:
        raise due.past()
    moment = due.at or clock() + timedelta(seconds=seconds)
    if not isinstance(run, RunRecord) or not services.waiting.reschedule(run, moment):
        raise _not_waiting(services.visible_run(run_id, identity))
    return _answer(services.visible_run(run_id, identity))


def _read_due(body: dict[str, Any]) -> Due:
    if unknown := body.keys() - {"delay", "at"}:
        raise BadRequest(f"The body takes delay or at, not {min(unknown)[:40]!r}")
    return due_of(body.get("delay"), body.get("at"))


def _not_waiting(run: RunRecord | PastRun) -> NotWaiting:
    waiting = run.waiting_for if isinstance(run, RunRecord) else None
    state = _WAITS.get(str(waiting["kind"]), _STARTED) if waiting else f"is {run.status}"
    return NotWaiting(
        f"The run {state}: only one that waits for its time, and has not started, is given another"
    )


@runs.get("/api/runs/<run_id>/events")
def events(run_id: str) -> Response:
    """Server-sent events: the run at each change of status or progress, until its end."""
    identity = identify()
    watching = current_services().watching
    with ExitStack() as held:
        held.enter_context(watching.streams.taken_by(_who(identity)))
        current_services().visible_run(run_id, identity)
        stream = () if request.method == "HEAD" else _events(watching, run_id)
        response = Response(stream, mimetype="text/event-stream")
        response.headers["X-Accel-Buffering"] = "no"
        if stream:
            response.call_on_close(held.pop_all().close)
        return response


def _events(watching: Watching, run_id: str) -> Iterator[str]:
    status = None
    with watching.watch(run_id) as watch, suppress(ServiceUnavailable):  # the client asks again
        for seen in watch.changes():
            if seen is None:
                yield ": still running\n\n"
            elif seen.run:
                kind = "progress" if seen.run.status == status else "status"
                status = seen.run.status
                yield f"event: {kind}\ndata: {seen.text}\n\n"


def _who(identity: Identity | None) -> str:
    """Whose a watcher is: the caller's or, without a token, the address's."""
    return identity.subject if identity else f"\0{network(request.remote_addr or '')}"


def _answer(run: RunRecord | PastRun) -> Response:
    return envelope({"success": True, "data": shown(run)}, 200)
