"""One operation per action: ``POST /api/actions/<name>``."""

from __future__ import annotations

import inspect
import typing
from typing import Any

from pydantic import TypeAdapter
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

from callboard.registry import Registry
from callboard.sdk.action import Action
from callboard.sdk.fails import declared_codes
from callboard.sdk.results import ActionResult

from .components import RESERVED, data_envelope, failure_envelope, failures, ref, responds

__all__ = ["action_paths"]

Part = dict[str, Any]
_Key = tuple[str, JsonSchemaMode]


def action_paths(registry: Registry) -> tuple[Part, Part]:
    """The paths of all actions, and the schemas that these refer to, by name."""
    actions = sorted(registry.public.values(), key=lambda action: action.name)
    typed, schemas = _schemas(actions)
    paths = {
        f"/api/actions/{action.name}": {
            "post": _operation(
                action,
                _body(typed.get((action.name, "validation"), {"type": "object"})),
                typed.get((action.name, "serialization"), {"description": "Any JSON."}),
            )
        }
        for action in actions
    }
    return paths, schemas


def _schemas(actions: list[Action]) -> tuple[dict[_Key, Part], Part]:
    """The schema of each action's params and result that has one, and what they refer to."""
    inputs: list[tuple[str, JsonSchemaMode, TypeAdapter[Any]]] = []
    for action in actions:
        if action.params is not None and action.params.adapter is not None:
            inputs.append((action.name, "validation", action.params.adapter))
        if (result := _result_type(action)) is not None:
            inputs.append((action.name, "serialization", result))
    generated, document = TypeAdapter.json_schemas(
        inputs, ref_template="#/components/schemas/{model}", schema_generator=_Generator
    )
    return dict(generated), document.get("$defs", {})


class _Generator(GenerateJsonSchema):
    """pydantic's schemas, out of the way of the names that the document takes itself."""

    def normalize_name(self, name: str) -> str:
        """The name of a model's schema."""
        normal = super().normalize_name(name)
        return f"{normal}Model" if normal in RESERVED else normal

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> Part:
        """A field that JSON Schema has no words for is documented as any JSON."""
        return {}


def _body(params: Part) -> Part:
    """The schema of a body, which is an object: ``Invite | None`` takes no null over HTTP."""
    choices = [choice for choice in params.get("anyOf", ()) if choice.get("type") != "null"]
    if not choices:
        return params
    return choices[0] if len(choices) == 1 else {**params, "anyOf": choices}


def _result_type(action: Action) -> TypeAdapter[Any] | None:
    """What the handler's annotation says of the data: ``-> ActionResult[Summary]``.

    None where it says nothing, or what pydantic makes no schema of.
    """
    try:
        result = typing.get_type_hints(action.handler).get("return")
    except Exception:  # noqa: BLE001 - a name that the module does not have: it documents nothing
        return None
    if typing.get_origin(result) is not ActionResult or typing.get_args(result) == (Any,):
        return None
    try:
        return TypeAdapter(typing.get_args(result)[0])
    except (PydanticSchemaGenerationError, PydanticUserError):
        return None


def _operation(action: Action, params: Part, data: Part) -> Part:
    text = inspect.getdoc(action.handler) or ""
    summary = text.partition("\n")[0].replace("`", "")  # plain text, unlike the description
    required = action.params is not None and action.params.is_required
    return {
        "operationId": action.name,
        "tags": ["actions"],
        "summary": summary or action.name,
        "description": "\n\n".join(part for part in (text, *_notes(action)) if part),
        "security": [{"bearer": []}, {}] if action.anonymous else [{"bearer": []}],
        "parameters": [
            ref("parameters", name) for name in ("Prefer", "IdempotencyKey", "RunDelay", "RunAt")
        ],
        "requestBody": {
            "required": required,
            "content": _content(action, params),
        },
        "responses": _responses(action, data),
    }


def _content(action: Action, params: Part) -> Part:
    """The types of content that it takes."""
    if action.raw:
        return {"application/json": {"schema": {}}, "*/*": {"schema": {}}}
    return {"application/json": {"schema": params}}


def _notes(action: Action) -> list[str]:
    """What a caller should know of the action's options."""
    notes = [f"Ends after {action.timeout:g} s."]
    if action.owner_only:
        notes.append("For the owner only.")
    if action.anonymous:
        notes.append("Needs no token.")
    if action.raw:
        notes.append("Takes any content.")
    if action.transaction:
        notes.append("Runs exactly once, in a transaction.")
    return [" ".join(notes)]


def _responses(action: Action, data: Part) -> Part:
    run = {"Run-Id": ref("headers", "RunId")}
    replayed = {"Idempotent-Replayed": ref("headers", "IdempotentReplayed")}
    refused = [*([403] if action.owner_only else []), *([431] if action.raw else [])]
    return {
        "200": responds(
            "The handler's result, a success or a failure",
            {"anyOf": [data_envelope(data), failure_envelope(declared_codes(action.handler))]},
            {**run, **replayed},
        ),
        "202": responds(
            "Accepted (`Prefer: respond-async`, `Run-Delay`, `Run-At`)",
            data_envelope(ref("schemas", "AcceptedRun")),
            {
                **run,
                **replayed,
                "Location": ref("headers", "Location"),
                "Preference-Applied": ref("headers", "PreferenceApplied"),
            },
        ),
        **failures(400, 401, *refused, 409, 410, 413, 415, 422, 429, 500, 503, 504),
    }
