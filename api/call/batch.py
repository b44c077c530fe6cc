"""``POST /api/batch``: many calls in one request, each checked as a call by itself."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import structlog
from flask import Blueprint, Response

from callboard import strict_json
from callboard.errors import BadRequest, CallboardError, InvalidParams, UnknownAction
from callboard.runs.start import Start
from callboard.runs.store import Accepted
from callboard.sdk.action import Action

from ..errors import STATUS, envelope
from ..identity.tokens import Identity
from ..services import Services, current_services, this_request
from ..telemetry import audit
from .calls import idempotency_of, identify, permitted, read_object
from .due import seconds_of
from .later import place, start_of

__all__ = ["MAX_CALLS", "batch"]

MAX_CALLS = 1000
MAX_HINTS = 20  # unknown names of a batch whose nearest names are looked for: up to 4 ms each
CALL = '{"action", "params", "key"?, "delay"?}'
FIELDS = ("action", "params", "key", "delay")
_DEPTH = strict_json.MAX_DEPTH + 3  # params lie in a call, in the list, in the body

batch = Blueprint("batch", __name__)

_log = structlog.get_logger("callboard.api")


class _Unexpected(CallboardError):
    """What a single call would answer with 500; the log has it."""


class _Read(NamedTuple):
    """A call that may be made, its params yet to be validated."""

    action: Action
    params: dict[str, Any]
    idempotency: tuple[str, str] | None
    seconds: float


@batch.post("/api/batch")
def call_all() -> Response:
    """Start each call; 202 with ``{"runId"}`` or ``{"error", "code", "status"}`` for each."""
    began = time.perf_counter()
    services = current_services()
    identity = identify()
    calls = _calls(read_object(this_request(), _DEPTH))
    answers = _started(services, identity, _Reader(services, identity).read(calls))
    shown = [_shown(answer) for answer in answers]
    for call, shown_result in zip(calls, shown, strict=True):
        _observe(call, shown_result, identity, time.perf_counter() - began)
    return envelope({"success": True, "data": shown}, 202)


def _calls(body: dict[str, Any]) -> list[Any]:
    calls = body.get("calls")
    if len(body) != 1 or not isinstance(calls, list):
        raise BadRequest(f'The body must be {{"calls": [{CALL}, ...]}}')
    if not 1 <= len(calls) <= MAX_CALLS:
        raise BadRequest(f"calls: from 1 to {MAX_CALLS}, not {len(calls)}; send several batches")
    return calls


class _Reader:
    """Reads the calls of one batch."""

    def __init__(self, services: Services, identity: Identity | None) -> None:
        self._services = services
        self._identity = identity
        self._hints = MAX_HINTS

    def read(self, calls: Sequence[object]) -> list[_Read | CallboardError]:
        """Each, or why it is refused."""
        read: list[_Read | CallboardError] = []
        for call in calls:
            try:
                read.append(self._read(call))
            except CallboardError as refusal:
                read.append(refusal)
        return read

    def _read(self, call: object) -> _Read:
        if not isinstance(call, dict):
            raise BadRequest(f"A call must be {CALL}")
        if unknown := call.keys() - set(FIELDS):
            raise BadRequest(f"A call takes {', '.join(FIELDS)}, not {min(unknown)[:40]!r}")
        name, params, key = call.get("action"), call.get("params", {}), call.get("key")
        if not isinstance(name, str):
            raise BadRequest("action: the name of an action, a text")
        action = self._permitted(name)
        if not isinstance(params, dict):
            raise BadRequest("params must be a JSON object, such as {}")
        if key is not None and not isinstance(key, str):
            raise BadRequest("key: a text of 1..255 characters")
        delay = call.get("delay")
        seconds = 0.0 if delay is None else seconds_of(delay)
        return _Read(action, params, idempotency_of(key, self._identity, action, params), seconds)

    def _permitted(self, name: str) -> Action:
        if self._identity and name not in self._services.registry.public:
            self._hints -= 1
            if self._hints < 0:
                raise UnknownAction(f"Unknown action {name[:64]!r}.")
        return permitted(self._services, name, self._identity)


def _started(
    services: Services, identity: Identity | None, calls: Sequence[_Read | CallboardError]
) -> list[Accepted | CallboardError]:
    """What came of each: those that may be made, and are within the rate limit, are."""
    wanted = sum(isinstance(call, _Read) for call in calls)
    allowed, refusal = services.limit_calls(identity, wanted)
    answers: list[Accepted | CallboardError | Start] = []
    for call in calls:
        if isinstance(call, CallboardError):
            answers.append(call)
        elif refusal and allowed == 0:
            answers.append(refusal)
        else:
            allowed -= 1
            answers.append(_start(call, identity))
    placed = iter(place(services, [one for one in answers if isinstance(one, Start)]))
    return [next(placed) if isinstance(one, Start) else one for one in answers]


def _start(call: _Read, identity: Identity | None) -> Start | CallboardError:
    """Once its params are validated."""
    try:
        call.action.validate(call.params)
    except CallboardError as refusal:
        return refusal
    except Exception as error:  # noqa: BLE001 - of a validator of the application's
        _log.error("validation failed", action=call.action.name, exc_info=error)
        return _Unexpected("Internal error")
    return start_of(call.action, identity, call.params, call.seconds, call.idempotency)


def _shown(answer: Accepted | CallboardError) -> dict[str, Any]:
    if isinstance(answer, Accepted):
        return {"runId": answer.run_id}
    status = STATUS.get(type(answer), 500)
    shown = {"error": str(answer), "code": answer.code, "status": status}
    return {**shown, "issues": answer.issues} if isinstance(answer, InvalidParams) else shown


def _observe(call: Any, shown: dict[str, Any], identity: Identity | None, seconds: float) -> None:
    """Of a call as of one by itself."""
    name = call.get("action") if isinstance(call, dict) else None
    audit.notify(
        audit.EndedCall(
            name if isinstance(name, str) else "",
            shown.get("status", 202),
            seconds,
            shown.get("runId"),
            identity.subject if identity else None,
            None,
        )
    )
