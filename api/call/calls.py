"""The call path: ``POST /api/actions/<name>``, from the HTTP request to the HTTP response."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from typing import Any

from flask import Blueprint, Flask, Request, Response
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge, UnsupportedMediaType
from werkzeug.sansio.utils import get_content_length

from callboard import strict_json
from callboard.clock import DatabaseClock
from callboard.errors import BadRequest, SealError
from callboard.runs.history import PastRun
from callboard.runs.idempotency import scoped
from callboard.runs.outcome import Outcome
from callboard.runs.record import RunRecord, unreadable
from callboard.runs.seal import Call
from callboard.sdk.action import Action
from callboard.sdk.request import ActionRequest
from callboard.settings import Settings

from ..errors import envelope
from ..identity.tokens import Identity
from ..prefix import run_location
from ..services import Services, current_services, this_request
from ..telemetry import audit
from .due import Due, read_due
from .later import place_one, start_of
from .preferences import Preferences, read_preferences
from .received import digested, received

__all__ = [
    "MAX_BODY_BYTES",
    "add_paths",
    "calls",
    "idempotency_of",
    "identify",
    "permitted",
    "read_body",
    "read_json",
    "read_object",
    "started",
]

MAX_BODY_BYTES = 1024 * 1024
calls = Blueprint("calls", __name__)

_ASYNC = Preferences(wait=None, respond_async=True)


@calls.post("/api/actions/<name>")
def call(name: str) -> Response:
    """Run an action and answer with its result."""
    services, request = current_services(), this_request()
    environ = request.environ
    audit.begin(request)
    identity = _identify(services, request)
    action = permitted(services, name, identity)
    raw = received(request, read_body(request)) if action.raw else None
    params = {} if raw else read_object(request)
    preferences = read_preferences(environ.get("HTTP_PREFER"))
    key = environ.get("HTTP_IDEMPOTENCY_KEY")
    if raw:
        key = key if identity else None  # it is the sender's own: the handler sees it
        idempotency = idempotency_of(key, identity, action, digested(raw))
    else:
        idempotency = idempotency_of(key, identity, action, params)
    delay, at = environ.get("HTTP_RUN_DELAY"), environ.get("HTTP_RUN_AT")
    due = None if delay is at is None else read_due(delay, at)
    services.limit_rate(identity, "calls")
    action.validate(params)
    if due is not None:
        return _run_later(services, action, identity, params, due, idempotency, raw)
    return _run(services, action, identity, params, preferences, idempotency, raw)


def add_paths(app: Flask, actions: Iterable[str]) -> None:
    """Give each action a path of its own, which is found at once; the pattern is for the rest."""
    for name in actions:
        app.add_url_rule(
            f"/api/actions/{name}", "calls.call", defaults={"name": name}, methods=["POST"]
        )
    app.url_map.redirect_defaults = False  # the pattern leads to no other place


def identify() -> Identity | None:
    """The caller of this request, which is no call, and is counted.

    Raises `Unauthorized` for a token that is not acceptable, and `RateLimited`.
    """
    services = current_services()
    identity = _identify(services, this_request())
    services.limit_rate(identity, "requests")
    return identity


def _identify(services: Services, request: Request) -> Identity | None:
    """The caller of this request; raises `Unauthorized` for a token that is not acceptable."""
    identity = services.verifier.identify(request.environ.get("HTTP_AUTHORIZATION"))
    request.environ[audit.CALLER] = identity and identity.subject
    return identity


def permitted(services: Services, name: str, identity: Identity | None) -> Action:
    """The action, if this caller may call it."""
    caller = identity.subject if identity else None
    return services.registry.permitted(name, caller, services.settings.owner_user_id)


def read_object(request: Request, depth: int = strict_json.MAX_DEPTH) -> dict[str, Any]:
    """The body: a JSON object of at most 1 MiB; an empty body is ``{}``. ``depth``: its levels."""
    body = read_body(request)
    params = _parsed(request, body, depth) if body else {}
    if not isinstance(params, dict):
        raise BadRequest("The body must be a JSON object, such as {}")
    return params


def read_json(request: Request) -> Any:
    """The body: any JSON of at most 1 MiB; an empty body is None."""
    body = read_body(request)
    return _parsed(request, body, strict_json.MAX_DEPTH) if body else None


def _parsed(request: Request, body: bytes, depth: int) -> Any:
    if request.environ.get("CONTENT_TYPE") != "application/json" and not request.is_json:
        raise UnsupportedMediaType
    try:
        return strict_json.loads(body, depth)
    except strict_json.NotJson as error:
        raise BadRequest(f"The body is not JSON: {error}") from None


def read_body(request: Request) -> bytes:
    """The body, of at most 1 MiB; raises `RequestEntityTooLarge`, and `ClientDisconnected`."""
    environ = request.environ
    coding = environ.get("HTTP_TRANSFER_ENCODING")
    length = get_content_length(environ.get("CONTENT_LENGTH"), coding)
    if length is None:
        body = request.get_data() if coding else b""
    elif length > MAX_BODY_BYTES:
        raise RequestEntityTooLarge
    else:
        body = environ["wsgi.input"].read(length)
        if len(body) < length:
            raise ClientDisconnected
    if len(body) > MAX_BODY_BYTES:  # sent in chunks, without a length
        raise RequestEntityTooLarge
    return body


def idempotency_of(
    key: str | None, identity: Identity | None, action: Action, params: dict[str, Any]
) -> tuple[str, str] | None:
    """The ``Idempotency-Key``, scoped to caller and action, and the digest of the body."""
    if key is None:
        return None
    if identity is None:
        raise BadRequest("Idempotency-Key needs a caller: send a token, or drop the header")
    return scoped(key, identity.subject, action.name, params)


def _run(
    services: Services,
    action: Action,
    identity: Identity | None,
    params: dict[str, Any],
    preferences: Preferences,
    idempotency: tuple[str, str] | None,
    raw: ActionRequest | None,
) -> Response:
    """Enqueue the run and wait for its reply as long as the caller wants to."""
    settings = services.settings
    seconds = _wait_seconds(settings, preferences)
    deadline = time.monotonic() + seconds
    run_id = str(uuid.uuid4())
    made = Call(
        caller=identity.subject if identity else None,
        claims=identity.claims if identity else {},
        jwt=identity.token if identity else None,
        params=params,
        request=raw,
    )
    with services.replies.submit(
        run_id,
        action,
        made,
        max_queue=settings.max_queue,
        result_ttl=settings.result_ttl,
        idempotency=idempotency,
    ) as submission:
        outcome = submission.result(deadline) if seconds else None
        accepted = submission.accepted()
    status = "queued"
    if accepted.run_id != run_id:
        run = _joined(services, accepted.run_id, identity, deadline)
        outcome = run.outcome if run else None
        status = run.status if run else status
    elif not outcome and preferences.respond_async and (seconds or action.limit):
        status = services.status_of(run_id)
    response = ended(outcome) if outcome else _not_ended(accepted.run_id, status, preferences)
    response.headers["Run-Id"] = accepted.run_id
    if accepted.joined:
        response.headers["Idempotent-Replayed"] = "true"
    return response


def _run_later(
    services: Services,
    action: Action,
    identity: Identity | None,
    params: dict[str, Any],
    due: Due,
    idempotency: tuple[str, str] | None,
    raw: ActionRequest | None,
) -> Response:
    """Have the run started when it is due; 202."""
    seconds = due.seconds(DatabaseClock(services.store.database).passed)
    if seconds < 0 and not (idempotency and services.runs.keyed(idempotency[0])):
        raise due.past()  # but a call that is sent again joins its run, however late
    start = start_of(action, identity, params, max(seconds, 0.0), idempotency, raw)
    accepted = place_one(services, start)
    run_id, status, outcome = accepted.run_id, "waiting" if start.terms.delay else "queued", None
    if action.limit and not start.terms.delay:
        status = services.status_of(run_id)
    if run_id != start.run_id and (run := _joined(services, run_id, identity, time.monotonic())):
        status, outcome = run.status, run.outcome
    response = ended(outcome) if outcome else _not_ended(run_id, status, _ASYNC)
    response.headers["Run-Id"] = run_id
    if accepted.joined:
        response.headers["Idempotent-Replayed"] = "true"
    return response


def _joined(
    services: Services, run_id: str, identity: Identity | None, deadline: float
) -> RunRecord | PastRun | None:
    """The run that an idempotency key led to, as it is when it has ended or at the deadline."""
    # who can write to Redis could point a key of his at another caller's run
    services.visible_run(run_id, identity)
    run = services.wait_for_end(run_id, deadline)
    if run and run.ended is not None and run.outcome is None:
        raise SealError(unreadable(run.id))
    return run


def _wait_seconds(settings: Settings, preferences: Preferences) -> float:
    if preferences.wait is not None:
        return min(preferences.wait, settings.max_wait)
    return 0.0 if preferences.respond_async else settings.wait


def ended(outcome: Outcome) -> Response:
    """The response to a caller whose run has ended."""
    response = envelope(outcome.body, outcome.http_status)
    if outcome.http_status == 503:
        response.headers["Retry-After"] = "2"
    return response


def started(services: Services, run_id: str) -> Response:
    """The response to the owner who has started a run, and does not wait for it: 202."""
    data = {"runId": run_id, "status": services.status_of(run_id)}
    location = run_location(run_id)
    return envelope({"success": True, "data": data}, 202, Location=location, Run_Id=run_id)


def _not_ended(run_id: str, status: str, preferences: Preferences) -> Response:
    location = run_location(run_id)
    if preferences.respond_async:
        data = {"runId": run_id, "status": status}
        return envelope(
            {"success": True, "data": data},
            202,
            Location=location,
            Preference_Applied="respond-async",
        )
    body = {
        "success": False,
        "error": f"The run goes on; see {location}",
        "code": "wait_over",
        "runId": run_id,
    }
    return envelope(body, 504, Location=location, Retry_After="1")
