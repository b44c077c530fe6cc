"""The fixed part of the API: runs, schedules and probes."""

from __future__ import annotations

from typing import Any

from .components import data_envelope, failures, nullable, ref, responds
from .owners import BULK, BULK_DONE, INTERNAL_ACTIONS, REPLAY, RUN_DETAIL, RUN_ERRORS

__all__ = ["ENDPOINTS", "TAGS"]

Part = dict[str, Any]

TAGS: list[Part] = [
    {"name": "actions", "description": "What this application does."},
    {"name": "runs", "description": "What became of a call."},
    {"name": "schedules", "description": "What runs by itself. For the owner only."},
    {"name": "health", "description": "Probes."},
]

_TOKEN: list[Part] = [{"bearer": []}]
_TOKEN_OR_NONE: list[Part] = [{"bearer": []}, {}]  # an anonymous run is readable by its id


def _operation(
    name: str,
    summary: str,
    answers: Part,
    *codes: int,
    tag: str,
    security: list[Part] = _TOKEN,
    parameters: tuple[Part, ...] = (),
    description: str = "",
) -> Part:
    return {
        "operationId": name,
        "tags": [tag],
        "summary": summary,
        **({"description": description} if description else {}),
        "security": security,
        "parameters": list(parameters),
        "responses": {**answers, **failures(*codes)},
    }


def _query(name: str, description: str, schema: Part) -> Part:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _ok(description: str, data: Part) -> Part:
    return {"200": responds(description, data_envelope(data))}


def _body(schema: Part) -> Part:
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _rows(name: str, schema: str, **others: Part) -> Part:
    rows = {"type": "array", "items": ref("schemas", schema)}
    return {
        "type": "object",
        "properties": {name: rows, **others},
        "required": [name, *others],
    }


def _limit(most: int, default: int) -> Part:
    schema = {"type": "integer", "minimum": 1, "maximum": most, "default": default}
    return _query("limit", "How many at most.", schema)


_RUN_ID = ref("parameters", "RunId")
_SCHEDULE = ref("parameters", "ScheduleName")
_A_RUN = _ok("The run", ref("schemas", "Run"))
_ACCEPTED: Part = {
    "202": responds(
        "Accepted",
        data_envelope(ref("schemas", "AcceptedRun")),
        {"Run-Id": ref("headers", "RunId"), "Location": ref("headers", "Location")},
    )
}

_EVENT: Part = {
    "type": "object",
    "properties": {
        "event": {"type": "string", "enum": ["status", "progress"]},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": ref("schemas", "Run"),
        },
    },
    "required": ["event", "data"],
}

_RUNS: Part = {
    "/api/runs": {
        "get": _operation(
            "runs.list", "Your runs, newest first; the owner sees all",
            _ok("A page of runs; `after` is the next page's cursor, or null",
                _rows("runs", "ListedRun", after=nullable({"type": "string"}))),
            400, 401, 429, 503,
            tag="runs",
            parameters=(
                _query("action", "Only runs of this action.",
                       {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}),
                _query("status", "Only runs with this status.", ref("schemas", "RunStatus")),
                _query("parent", "Only runs that this one has started.",
                       {"type": "string", "format": "uuid"}),
                _query("lost", "Only runs that ended `Worker lost`.", {"type": "boolean"}),
                _limit(200, 50),
                _query("after", "The `after` of the page before.", {"type": "string"}),
            ),
        )
    },
    "/api/runs/errors": {
        "get": _operation(
            "runs.errors", "What fails: the failed runs of the last hours, by action and exception",
            _ok("The most frequent first; `complete` is false where not all were looked at",
                RUN_ERRORS),
            400, 401, 403, 429, 503,
            tag="runs", description="For the owner only.",
            parameters=(
                _query("hours", "Runs that were enqueued within so many hours.",
                       {"type": "integer", "minimum": 1, "maximum": 720, "default": 24}),
                _query("action", "Only runs of this action.",
                       {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}),
            ),
        )
    },
    "/api/runs/{runId}": {
        "get": _operation(
            "runs.show", "One run",
            _A_RUN, 400, 401, 404, 410, 429, 503,
            tag="runs", security=_TOKEN_OR_NONE,
            parameters=(
                _RUN_ID,
                _query("wait", "Answer when the run has ended, or after so many seconds.",
                       {"type": "integer", "minimum": 0, "default": 0}),
            ),
        )
    },
    "/api/runs/{runId}/detail": {
        "get": _operation(
            "runs.detail", "All that is known of a run",
            _ok("The run, with params, attempts, log, steps and children",
                RUN_DETAIL),
            401, 403, 404, 410, 429, 503,
            tag="runs", parameters=(_RUN_ID,), description="For the owner only.",
        )
    },
    "/api/runs/{runId}/events": {
        "get": _operation(
            "runs.watch", "A run's status and progress as server-sent events",
            {"200": {
                "description": "Events `status` and `progress`, the data of each a Run, until "
                "the run has ended",
                "content": {"text/event-stream": {"schema": _EVENT}},
            }},
            401, 404, 410, 429, 503,
            tag="runs", security=_TOKEN_OR_NONE, parameters=(_RUN_ID,),
        )
    },
    "/api/runs/{runId}/cancel": {
        "post": _operation(
            "runs.cancel", "Cancel a run",
            _A_RUN, 401, 404, 410, 429, 503,
            tag="runs", security=_TOKEN_OR_NONE, parameters=(_RUN_ID,),
            description="A queued run never starts, a running one is stopped within 5 s, an "
            "ended one stays as it is.",
        )
    },
    "/api/runs/{runId}/reschedule": {
        "post": {
            **_operation(
                "runs.reschedule", "Another time for a run that waits for its own",
                _A_RUN, 400, 401, 404, 409, 410, 413, 415, 429, 503,
                tag="runs", security=_TOKEN_OR_NONE, parameters=(_RUN_ID,),
                description="409 for a run that does not wait for its time (any more).",
            ),
            "requestBody": _body(ref("schemas", "Reschedule")),
        }
    },
    "/api/runs/{runId}/signals/{name}": {
        "post": {
            **_operation(
                "runs.signal", "Tell a run what it waits for",
                _ok("Whether it counts: the first of a name does, unless it comes too late", {
                    "type": "object",
                    "properties": {"accepted": {"type": "boolean"}},
                    "required": ["accepted"],
                }),
                400, 401, 404, 409, 410, 413, 415, 429, 503,
                tag="runs", security=_TOKEN_OR_NONE,
                parameters=(_RUN_ID, ref("parameters", "SignalName"),
                            ref("parameters", "Signature")),
                description="Any JSON; no body is null. For the run's caller and the owner, or for "
                "whoever has a signed URL, which takes a form, too. 404 where nothing can wait for "
                "it: the run has ended, or is not yours.",
            ),
            "requestBody": {"required": False, "content": {"application/json": {"schema": {
                "description": "Any JSON."
            }}}},
        }
    },
    "/api/runs/{runId}/retry": {
        "post": _operation(
            "runs.retry", "Start a run again that ended `Worker lost` or as unavailable",
            _A_RUN, 401, 403, 404, 409, 410, 429, 503,
            tag="runs", parameters=(_RUN_ID,), description="For the owner only.",
        )
    },
    "/api/runs/{runId}/replay": {
        "post": {
            **_operation(
                "runs.replay", "Start a new run of the same call, or with other params",
                _ACCEPTED,
                400, 401, 403, 404, 409, 410, 413, 415, 422, 429, 500, 503,
                tag="runs", parameters=(_RUN_ID,),
                description="For the owner only. The new run's caller is that of the old one; the "
                "token and the claims are not kept. 409 where what it was called with is not, "
                "either: then give it `params`.",
            ),
            "requestBody": {**_body(REPLAY), "required": False},
        }
    },
    "/api/runs/bulk": {
        "post": {
            **_operation(
                "runs.bulk", "Cancel, retry or replay all runs that a filter finds",
                _ok("How many there were, and to how many it was done", BULK_DONE),
                400, 401, 403, 413, 415, 429, 503,
                tag="runs", description="For the owner only. It works for up to 20 s.",
            ),
            "requestBody": _body(BULK),
        }
    },
}  # fmt: skip

_BATCH: Part = {
    "/api/batch": {
        "post": {
            **_operation(
                "batch", "Start up to 1,000 runs",
                {"202": responds(
                    "What came of each call, in their order",
                    data_envelope({"type": "array", "items": ref("schemas", "BatchAnswer")}),
                )},
                400, 401, 413, 415, 429, 503,
                tag="runs", security=_TOKEN_OR_NONE,
                description="Each call is checked as a call by itself, and counted by the rate "
                "limit; one that is refused stops no other.",
            ),
            "requestBody": _body({
                "type": "object",
                "properties": {"calls": {
                    "type": "array", "minItems": 1, "maxItems": 1000,
                    "items": ref("schemas", "BatchCall"),
                }},
                "required": ["calls"],
                "additionalProperties": False,
            }),
        }
    }
}  # fmt: skip

_SCHEDULES: Part = {
    "/api/schedules": {
        "get": _operation(
            "schedules.list", "Every schedule, with its last and its next fire",
            _ok("All that are declared, and a page of those that handlers have put; `after` is the "
                "next page's cursor, or null",
                _rows("schedules", "Schedule", after=nullable({"type": "string"}))),
            400, 401, 403, 429, 503,
            tag="schedules", parameters=(
                _limit(1000, 100),
                _query("after", "The `after` of the page before.", {"type": "string"}),
            ),
        )
    },
    "/api/schedules/{name}/history": {
        "get": _operation(
            "schedules.history", "The last fires of a schedule, newest first",
            _ok("The fires", _rows("fires", "Fire")), 400, 401, 403, 404, 429, 503,
            tag="schedules", parameters=(_SCHEDULE, _limit(1000, 100)),
        )
    },
    "/api/schedules/{name}/trigger": {
        "post": _operation(
            "schedules.trigger", "Run the schedule's action now",
            _ACCEPTED,
            401, 403, 404, 410, 429, 500, 503, tag="schedules", parameters=(_SCHEDULE,),
        )
    },
    **{
        f"/api/schedules/{{name}}/{verb}": {
            "post": _operation(
                f"schedules.{verb}", summary, _ok("The schedule", ref("schemas", "Schedule")),
                401, 403, 404, 429, 503, tag="schedules", parameters=(_SCHEDULE,),
            )
        }
        for verb, summary in (
            ("pause", "Fire no more until it is resumed"),
            ("resume", "Fire again, from now on"),
        )
    },
}  # fmt: skip

_INTERNAL: Part = {
    "/api/internal": {
        "get": _operation(
            "internal.list", "The actions that no client can call",
            _ok("The actions", INTERNAL_ACTIONS), 401, 403, 429, 503,
            tag="actions", description="For the owner only.",
        )
    },
    "/api/internal/{name}": {
        "post": {
            **_operation(
                "internal.start", "Start one of them",
                _ACCEPTED,
                400, 401, 403, 404, 413, 415, 422, 429, 500, 503,
                tag="actions", parameters=(ref("parameters", "InternalName"),),
                description="For the owner only, who is its caller.",
            ),
            "requestBody": {**_body({"type": "object"}), "required": False},
        }
    },
}  # fmt: skip


def _probe(name: str, summary: str, *codes: int) -> Part:
    state = {
        "type": "object",
        "properties": {"status": {"type": "string"}},
        "required": ["status"],
    }
    return {
        "get": _operation(name, summary, _ok(summary, state), *codes, tag="health", security=[])
    }


_PROBES: Part = {
    "/healthz": _probe("health.alive", "The process answers"),
    "/readyz": _probe("health.ready", "Calls can be enqueued, and no thread is dead", 503),
}

ENDPOINTS: Part = {**_BATCH, **_RUNS, **_INTERNAL, **_SCHEDULES, **_PROBES}
