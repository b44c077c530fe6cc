"""The call path: ``POST /api/actions/<name>``, from the HTTP request to the HTTP response."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from typing import Any

from flask import Blueprint, Response, g, request
from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType

from api.errors import envelope
from api.identity import Identity
from api.preferences import Preferences, read_preferences
from api.services import Services, services
from callboard.action import Action
from callboard.errors import BadRequest
from callboard.outcome import Outcome
from callboard.seal import Call
from callboard.settings import Settings

__all__ = ["MAX_BODY_BYTES", "calls", "identify"]

MAX_BODY_BYTES = 1024 * 1024
calls = Blueprint("calls", __name__)


@calls.post("/api/actions/<name>")
def call(name: str) -> Response:
    """Run an action and answer with its result."""
    at_hand = services()
    identity = identify()
    action = _permitted(at_hand, name, identity)
    params = _read_params()
    preferences = read_preferences(request.headers.get("Prefer"))
    idempotency = _idempotency(identity, action, params)
    at_hand.limit_rate(identity)
    action.validate(params)
    return _run(at_hand, action, identity, params, preferences, idempotency)


def identify() -> Identity | None:
    """The caller of this request; raises `Unauthorized` for a token that is not acceptable."""
    identity = services().verifier.identify(request.headers.get("Authorization"))
    g.caller = identity and identity.subject
    return identity


def _permitted(at_hand: Services, name: str, identity: Identity | None) -> Action:
    """The action, if this caller may call it."""
    caller = identity.subject if identity else None
    return at_hand.registry.permitted(name, caller, at_hand.settings.owner_user_id)


def _read_params() -> dict[str, Any]:
    """The body: a JSON object of at most 1 MiB; an empty body is ``{}``."""
    if (request.content_length or 0) > MAX_BODY_BYTES:
        raise RequestEntityTooLarge
    if request.content_length is None and not request.headers.get("Transfer-Encoding"):
        return {}
    if not _is_json() and request.content_length != 0 and request.get_data():
        raise UnsupportedMediaType
    body = request.get_data()
    if len(body) > MAX_BODY_BYTES:  # sent in chunks, without a length
        raise RequestEntityTooLarge
    if not body:
        return {}
    try:
        params = _parse(body.decode())
    except (ValueError, RecursionError) as error:
        raise BadRequest("The body is not JSON") from error
    if not isinstance(params, dict):
        raise BadRequest("The body must be a JSON object, such as {}")
    return params


def _is_json() -> bool:
    return request.content_type == "application/json" or request.is_json  # parses the header


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


_parse = json.JSONDecoder(parse_constant=_no_constant).decode


def _idempotency(
    identity: Identity | None, action: Action, params: dict[str, Any]
) -> tuple[str, str] | None:
    """The ``Idempotency-Key``, scoped to caller and action, and the digest of the body."""
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    if identity is None:
        raise BadRequest("Idempotency-Key needs a caller: send a token, or drop the header")
    if not 1 <= len(key) <= 255:
        raise BadRequest(f"Idempotency-Key takes 1..255 characters, not {len(key)}")
    body = json.dumps(params, sort_keys=True, separators=(",", ":"))
    return _digest(identity.subject, action.name, key), _digest(body)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode(errors="surrogatepass")).hexdigest()


def _run(
    at_hand: Services,
    action: Action,
    identity: Identity | None,
    params: dict[str, Any],
    preferences: Preferences,
    idempotency: tuple[str, str] | None,
) -> Response:
    """Enqueue the run and wait for its reply as long as the caller wants to."""
    settings, runs, replies = at_hand.settings, at_hand.runs, at_hand.replies
    seconds = _wait_seconds(settings, preferences)
    deadline = time.monotonic() + seconds
    run_id = str(uuid.uuid4())
    with replies.expect(run_id) as waiter:
        accepted = runs.accept(
            run_id,
            action,
            Call(
                caller=identity.subject if identity else None,
                claims=identity.claims if identity else {},
                jwt=identity.token if identity else None,
                params=params,
                reply=replies.channel,
            ),
            max_queue=settings.max_queue,
            result_ttl=settings.result_ttl,
            idempotency=idempotency,
        )
        if accepted.run_id == run_id:
            sealed = replies.result(run_id, waiter, deadline) if seconds else None
        else:
            # who can write to Redis could point a key of his at another caller's run
            at_hand.visible_run(accepted.run_id, identity)
            sealed = at_hand.wait_for_end(accepted.run_id, deadline)
    if sealed is None:
        response = _not_ended(accepted.run_id, preferences)
    else:
        outcome = runs.open_result(accepted.run_id, action.name, sealed)
        response = ended(outcome)
    response.headers["Run-Id"] = accepted.run_id
    if accepted.joined:
        response.headers["Idempotent-Replayed"] = "true"
    return response


def _wait_seconds(settings: Settings, preferences: Preferences) -> float:
    if preferences.wait is not None:
        return min(preferences.wait, settings.max_wait)
    return 0.0 if preferences.respond_async else settings.wait


def ended(outcome: Outcome) -> Response:
    """The response to a caller whose run has ended."""
    response = envelope(outcome.body, outcome.code)
    if outcome.code == 503:
        response.headers["Retry-After"] = "2"
    return response


def _not_ended(run_id: str, preferences: Preferences) -> Response:
    location = f"/api/runs/{run_id}"
    if preferences.respond_async:
        data = {"runId": run_id, "status": services().status_of(run_id)}
        return envelope(
            {"success": True, "data": data},
            202,
            Location=location,
            Preference_Applied="respond-async",
        )
    body = {"success": False, "error": f"The run goes on; see {location}", "runId": run_id}
    return envelope(body, 504, Location=location, Retry_After="1")
