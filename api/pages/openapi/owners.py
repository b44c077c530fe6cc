"""The schemas of what is told the owner: ``/api/runs/{runId}/detail``, ``/api/runs/errors``,
``/api/runs/{runId}/replay``, ``/api/runs/bulk``, ``/api/internal``."""

from __future__ import annotations

from typing import Any

from .components import nullable, ref

__all__ = ["BULK", "BULK_DONE", "INTERNAL_ACTIONS", "REPLAY", "RUN_DETAIL", "RUN_ERRORS"]

_TEXT: dict[str, Any] = {"type": "string"}
_TIME: dict[str, Any] = {"type": "string", "format": "date-time"}
_COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}


def _rows(description: str, /, **properties: Any) -> dict[str, Any]:
    rows = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "array", "items": rows, "description": description}


_CHILDREN: dict[str, Any] = {
    "type": "object",
    "properties": {
        "runs": {"type": "array", "items": ref("schemas", "ListedRun")},
        "after": nullable({**_TEXT, "description": "Goes on at `/api/runs?parent=`."}),
    },
    "required": ["runs", "after"],
    "description": "The runs that it has started, newest first.",
}

RUN_DETAIL: dict[str, Any] = {
    "type": "object",
    "properties": {
        "runId": {"type": "string", "format": "uuid"},
        "action": _TEXT,
        "status": ref("schemas", "RunStatus"),
        "waitingFor": ref("schemas", "WaitingFor"),
        "enqueuedAt": _TIME,
        "startedAt": nullable(_TIME),
        "completedAt": nullable(_TIME),
        "createdBy": nullable(_TEXT),
        "result": nullable({"type": "object", "description": "The envelope."}),
        "progress": nullable(ref("schemas", "Progress")),
        "parent": nullable({"type": "string", "format": "uuid"}),
        "params": nullable({"type": "object", "description": "null: no longer kept."}),
        "attempts": _rows(
            "The starts of the handler, the last 20.",
            attempt={**_COUNT, "description": "Counts from 1."},
            status={
                "type": "string",
                "enum": ["running", "succeeded", "failed", "canceled", "lost", "requeued", "ended"],
                "description": "`lost`: its worker died; `requeued`: handed back, such as by a "
                "worker that stops.",
            },
            startedAt=nullable(_TIME),
            completedAt=nullable(_TIME),
            worker=nullable({**_TEXT, "description": "Host and process id."}),
            error=nullable(_TEXT),
            traceback=nullable(_TEXT),
            linesDropped={**_COUNT, "description": "Log lines before those that are kept."},
        ),
        "log": _rows(
            "What the handler logged and printed: of each attempt the last 200 lines, 64 KiB.",
            attempt=_COUNT,
            at=_TIME,
            level=_TEXT,
            source={**_TEXT, "description": "`log` (ctx.log), `stdout`, `stderr`, or a logger."},
            text=_TEXT,
        ),
        "steps": _rows(
            "The steps that are done.",
            kind={"type": "string", "enum": ["step", "sleep", "wait", "signal"]},
            name=_TEXT,
            startedAt=_TIME,
            completedAt=_TIME,
        ),
        "children": _CHILDREN,
    },
}
RUN_DETAIL["required"] = [name for name in RUN_DETAIL["properties"] if name != "waitingFor"]

RUN_ERRORS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "errors": _rows(
            "Runs that failed alike.",
            action=_TEXT,
            exception=nullable({**_TEXT, "description": "The type of what was raised."}),
            error={**_TEXT, "description": "What the caller of the last one was told."},
            count=_COUNT,
            runId={"type": "string", "format": "uuid", "description": "The last one."},
            first=_TIME,
            last=_TIME,
        ),
        "complete": {"type": "boolean"},
    },
    "required": ["errors", "complete"],
}

INTERNAL_ACTIONS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "actions": _rows(
            "By name.",
            name=_TEXT,
            description=_TEXT,
            params={"type": "object", "description": "The JSON schema of its params."},
        ),
    },
    "required": ["actions"],
}

REPLAY: dict[str, Any] = {
    "type": "object",
    "properties": {"params": {"type": "object", "description": "Instead of those of the old run."}},
    "additionalProperties": False,
}

BULK: dict[str, Any] = {
    "type": "object",
    "properties": {
        "do": {"type": "string", "enum": ["cancel", "retry", "replay"]},
        "filter": {
            "type": "object",
            "properties": {
                "action": _TEXT,
                "status": ref("schemas", "RunStatus"),
                "caller": _TEXT,
                "since": {**_TIME, "description": "Enqueued then or later."},
                "until": {**_TIME, "description": "Enqueued then or earlier."},
            },
            "minProperties": 1,
            "additionalProperties": False,
        },
        "limit": {"type": "integer", "minimum": 1, "maximum": 10_000, "default": 10_000},
        "dryRun": {"type": "boolean", "default": False, "description": "Count them only."},
    },
    "required": ["do", "filter"],
    "additionalProperties": False,
}

BULK_DONE: dict[str, Any] = {
    "type": "object",
    "properties": {
        "matched": {**_COUNT, "description": "Runs of the filter that it can be done to."},
        "done": _COUNT,
        "complete": {"type": "boolean", "description": "false: there are more."},
    },
    "required": ["matched", "done", "complete"],
}
