"""The shared parts of the document: schemas, headers, parameters, responses, security."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from callboard.codes import FAILED, OWN_CODES
from callboard.runs.record import Status
from callboard.runs.waiting import LONGEST

__all__ = [
    "COMPONENTS",
    "RESERVED",
    "data_envelope",
    "failure_envelope",
    "failures",
    "nullable",
    "ref",
    "responds",
]

Part = dict[str, Any]


def ref(kind: str, name: str) -> Part:
    """A reference to a component, such as ``ref("schemas", "Run")``."""
    return {"$ref": f"#/components/{kind}/{name}"}


def nullable(schema: Part) -> Part:
    """What fits ``schema``, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def data_envelope(data: Part) -> Part:
    """The envelope of a success with this data."""
    return {
        "type": "object",
        "properties": {"success": {"const": True}, "data": data},
        "required": ["success", "data"],
    }


def failure_envelope(codes: Sequence[str]) -> Part:
    """The envelope of a failure; ``codes``: those that a handler declares, if it does."""
    if not codes:
        return ref("schemas", "Failure")
    code = {"anyOf": [{"type": "string", "enum": list(codes)}, ref("schemas", "CallboardCode")]}
    return {
        "allOf": [
            ref("schemas", "Failure"),
            {"type": "object", "properties": {"code": code}, "required": ["code"]},
        ]
    }


def responds(description: str, schema: Part, headers: Part | None = None) -> Part:
    """A response with a JSON body."""
    response: Part = {
        "description": description,
        "content": {"application/json": {"schema": schema}},
    }
    return {**response, "headers": headers} if headers else response


def failures(*codes: int) -> Part:
    """The responses of these statuses, each a failure that every operation tells alike."""
    return {str(code): ref("responses", _FAILURES[code][0]) for code in codes}


def _object(required: str, **properties: Part) -> Part:
    """An object; ``required``: names, parted by spaces."""
    return {"type": "object", "properties": properties, "required": required.split()}


_TEXT: Part = {"type": "string"}
_COUNT: Part = {"type": "integer", "minimum": 0}
_TIME: Part = {"type": "string", "format": "date-time", "examples": ["2026-01-31T09:00:00.000Z"]}
_DELAY: Part = {
    "type": "number",
    "minimum": 0,
    "maximum": LONGEST,
    "description": "Seconds from now.",
}
_ANY: Part = {"description": "Any JSON."}
_STATUS: Part = {"type": "string", "enum": list(get_args(Status))}

_ISSUES: Part = {
    "type": "array",
    "items": _object("path message", path=_TEXT, message=_TEXT),
    "description": "What does not fit the action's model; `path` is dotted.",
}

_RUN_COMMON: Part = {
    "runId": {"type": "string", "format": "uuid"},
    "action": _TEXT,
    "status": ref("schemas", "RunStatus"),
    "waitingFor": ref("schemas", "WaitingFor"),
    "attempts": {**_COUNT, "description": "Starts of the handler: retries and reruns."},
    "enqueuedAt": _TIME,
    "startedAt": nullable(_TIME),
    "completedAt": nullable(_TIME),
    "createdBy": nullable({**_TEXT, "description": "The caller; null for an anonymous one."}),
}
_RUN_REQUIRED = "runId action status attempts enqueuedAt startedAt completedAt createdBy"

_SCHEMAS: Part = {
    "CallboardCode": {
        "type": "string",
        "enum": [FAILED, *OWN_CODES],
        "description": "The codes of Callboard's own failures, and `failed`.",
    },
    "FailureCode": {
        "anyOf": [
            ref("schemas", "CallboardCode"),
            {"type": "string", "pattern": "^[a-z][a-z0-9_]{0,63}$"},
        ],
        "description": "What programs tell a failure by: Callboard's code, or the handler's own.",
    },
    "Failure": _object(
        "success error code",
        success={"const": False},
        error=_TEXT,
        code=ref("schemas", "FailureCode"),
        issues=_ISSUES,
        runId={"type": "string", "format": "uuid", "description": "Once a run exists."},
        debug={**_TEXT, "description": "Why, with the traceback; in development only."},
    ),
    "RunStatus": {
        **_STATUS,
        "description": "`queued` also between retries; `waiting`: see `waitingFor`; `failed`: the "
        "handler answered a failure, or Callboard ended the run.",
    },
    "WaitingFor": {
        **_object(
            "kind",
            kind={"type": "string", "enum": ["time", "signal", "group", "slot"]},
            name={**_TEXT, "description": "Of the signal, or of the handler's sleep."},
            until={**_TIME, "description": "When it goes on at the latest: of `time`, `signal`."},
        ),
        "description": "Of a run that is `waiting`: for a time, a signal, all runs of a group, or "
        "a slot of its limit.",
    },
    "Progress": _object(
        "fraction message",
        fraction={"type": "number", "minimum": 0, "maximum": 1},
        message=nullable(_TEXT),
    ),
    "Run": _object(
        f"{_RUN_REQUIRED} result progress",
        **_RUN_COMMON,
        parent={"type": "string", "format": "uuid", "description": "The run that has started it."},
        result=nullable({"anyOf": [data_envelope(_ANY), ref("schemas", "Failure")]}),
        progress=nullable(ref("schemas", "Progress")),
    ),
    "ListedRun": _object(
        f"{_RUN_REQUIRED} error lost",
        **_RUN_COMMON,
        error=nullable({**_TEXT, "description": "Why it failed."}),
        lost={**_COUNT, "description": "Workers that died with it."},
    ),
    "AcceptedRun": _object(
        "runId status",
        runId={"type": "string", "format": "uuid"},
        status=ref("schemas", "RunStatus"),
    ),
    "BatchCall": {
        **_object(
            "action",
            action=_TEXT,
            params={"type": "object"},
            key={**_TEXT, "minLength": 1, "maxLength": 255, "description": "An Idempotency-Key."},
            delay=_DELAY,
        ),
        "additionalProperties": False,
    },
    "BatchAnswer": {
        "anyOf": [
            _object("runId", runId={"type": "string", "format": "uuid"}),
            _object(
                "error code status",
                error=_TEXT,
                code=ref("schemas", "FailureCode"),
                status=_COUNT,
                issues=_ISSUES,
            ),
        ]
    },
    "Reschedule": {
        "type": "object",
        "properties": {"delay": _DELAY, "at": _TIME},
        "minProperties": 1,
        "maxProperties": 1,
        "additionalProperties": False,
    },
    "Schedule": _object(
        "name action everyMinutes cron timezone params catchUp overlap paused lastFire nextFire",
        name=_TEXT,
        action=_TEXT,
        everyMinutes=nullable({"type": "integer", "minimum": 1}),
        cron=nullable(_TEXT),
        timezone=nullable({**_TEXT, "examples": ["America/New_York"]}),
        params=nullable({"type": "object"}),
        caller={
            **nullable(_TEXT),
            "description": "As whom it runs, of one that a handler has put.",
        },
        catchUp={"type": "string", "enum": ["none", "last", "all"]},
        overlap={"type": "string", "enum": ["skip", "allow"]},
        paused={"type": "boolean"},
        lastFire=nullable(_TIME),
        nextFire=nullable(_TIME),
    ),
    "Fire": _object(
        "schedule plannedAt manual outcome runId startedAt completedAt attempts",
        schedule=_TEXT,
        plannedAt=_TIME,
        manual={"type": "boolean", "description": "Triggered by hand."},
        outcome=nullable(
            {
                "type": "string",
                "enum": ["succeeded", "failed", "canceled", "lost", "missed", "skipped"],
            }
        ),
        runId=nullable({"type": "string", "format": "uuid"}),
        startedAt=nullable(_TIME),
        completedAt=nullable(_TIME),
        attempts=_COUNT,
    ),
}

RESERVED = frozenset(_SCHEMAS)
"""The names of the schemas here: a model of this name is written under another one."""

_HEADERS: Part = {
    "RunId": {"description": "The run of this call.", "schema": {"type": "string"}},
    "Location": {"description": "Where the run is.", "schema": {"type": "string"}},
    "RetryAfter": {"description": "Seconds until the next try.", "schema": {"type": "string"}},
    "PreferenceApplied": {"description": "What of `Prefer` was done.", "schema": _TEXT},
    "IdempotentReplayed": {
        "description": "`true`: an earlier call with this Idempotency-Key made the run.",
        "schema": {"type": "string", "enum": ["true"]},
    },
    "WWWAuthenticate": {
        "description": "`Bearer`, and why a token was not accepted.",
        "schema": {"type": "string"},
    },
}

_PARAMETERS: Part = {
    "Prefer": {
        "name": "Prefer",
        "in": "header",
        "description": "How long to wait (RFC 7240): `wait=N` seconds, above the cap the cap; "
        "`respond-async` answers 202 instead of 504 when the wait ran out, at once without "
        "`wait`. Other preferences are ignored.",
        "schema": {"type": "string"},
        "examples": {"wait": {"value": "wait=10"}, "async": {"value": "respond-async"}},
    },
    "IdempotencyKey": {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "A call that is sent again under the same key, within 24 hours, joins "
        "the run of the first. Needs a caller.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255},
    },
    "RunDelay": {
        "name": "Run-Delay",
        "in": "header",
        "description": "Start the run so many seconds from now: 202, and the run is `waiting`.",
        "schema": _DELAY,
    },
    "RunAt": {
        "name": "Run-At",
        "in": "header",
        "description": "Start the run then, at most 366 days ahead. Excludes `Run-Delay`.",
        "schema": _TIME,
    },
    "RunId": {
        "name": "runId",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "format": "uuid"},
    },
    "SignalName": {
        "name": "name",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"},
    },
    "Signature": {
        "name": "signature",
        "in": "query",
        "description": "Of a URL that `ctx.signal_url` made: it needs no token.",
        "schema": {"type": "string"},
    },
    "InternalName": {
        "name": "name",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z][A-Za-z0-9_-]{0,63}$"},
    },
    "ScheduleName": {
        "name": "name",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_.:@|+=~-]{0,254}$"},
    },
}

_RETRY_AFTER = {"Retry-After": "RetryAfter"}

_FAILURES: dict[int, tuple[str, str, dict[str, str]]] = {
    400: ("BadRequest", "Not JSON, not an object, or a bad parameter or header value", {}),
    401: ("Unauthorized", "No token, or a bad one", {"WWW-Authenticate": "WWWAuthenticate"}),
    403: ("Forbidden", "For the owner only", {}),
    404: ("NotFound", "Unknown, or not the caller's", {}),
    409: (
        "Conflict",
        "Canceled, or not in a state for what is asked",
        {},
    ),
    410: ("Unreadable", "The run was sealed with a key that has left SECRET_KEY", {}),
    413: ("TooLarge", "The body is over 1 MiB", {}),
    415: ("NotJson", "The body is not sent as JSON", {}),
    422: ("Unprocessable", "Params that do not fit the model, or a used idempotency key", {}),
    431: ("HeadersTooLarge", "The headers are over 16 KiB", {}),
    429: ("RateLimited", "Called too often", _RETRY_AFTER),
    500: ("RunFailed", "Callboard ended the run; the text says why", {}),
    503: ("Unavailable", "The queue is full, or a service is away: try again", _RETRY_AFTER),
    504: (
        "StillRunning",
        "The wait ran out; the run goes on",
        {"Location": "Location", **_RETRY_AFTER},
    ),
}

_OF_A_RUN = (409, 500, 503, 504)  # these may carry the id of the run that they are about


def _failure(code: int) -> Part:
    _, description, named = _FAILURES[code]
    headers = {name: ref("headers", part) for name, part in named.items()}
    if code in _OF_A_RUN:
        headers["Run-Id"] = ref("headers", "RunId")
    return responds(description, ref("schemas", "Failure"), headers)


COMPONENTS: Part = {
    "schemas": _SCHEMAS,
    "headers": _HEADERS,
    "parameters": _PARAMETERS,
    "responses": {name: _failure(code) for code, (name, *_) in _FAILURES.items()},
    "securitySchemes": {
        "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
    },
}
