"""Params that an action accepts, made up from its model: for a call that somebody can paste."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from callboard.sdk.action import Action

__all__ = ["example_params"]

_BY_FORMAT = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "email": "ada@example.com",
    "uri": "https://example.com/",
    "uuid": "6f9619ff-8b86-4d01-b42d-00cf4fc964ff",
}
_DEEPEST = 10  # levels: a model may hold itself

Schema = Mapping[str, Any]


def example_params(action: Action) -> dict[str, Any] | None:
    """The required fields with values of their types; None where no guess fits the model."""
    adapter = action.params.adapter if action.params is not None else None
    if adapter is None:
        return {}
    try:
        schema = adapter.json_schema()
        made: dict[str, Any] = json.loads(json.dumps(_value(schema, schema.get("$defs", {}), "")))
        action.validate(made)
    except Exception:  # noqa: BLE001 - what the application's validators raise; it is only a guess
        return None
    return made


def _value(schema: Schema, named: Schema, name: str, levels: int = _DEEPEST) -> Any:
    """A value for one schema. ``name``: the field's, which stands for a text."""
    if not levels:
        raise RecursionError(name)
    if given := _given(schema):
        return given[0]
    if inner := _inner(schema, named):
        return _value(inner, named, name, levels - 1)
    if schema.get("type") == "object":
        fields = schema.get("properties", {})
        required = schema.get("required", ())
        return {key: _value(fields[key], named, key, levels - 1) for key in required}
    if schema.get("type") == "array":
        count = schema.get("minItems", 0)
        return [_value(schema["items"], named, name, levels - 1) for _ in range(count)]
    return _plain(schema, name)


def _given(schema: Schema) -> Sequence[Any]:
    """The values that a schema names itself."""
    named = [schema[word] for word in ("const", "default") if word in schema]
    return schema.get("examples") or schema.get("enum") or named


def _inner(schema: Schema, named: Schema) -> Schema | None:
    """The schema that stands for this one, or the first that it allows."""
    if "$ref" in schema:
        found: Schema = named[schema["$ref"].rpartition("/")[2]]
        return found
    choices = [schema[word][0] for word in ("anyOf", "oneOf", "allOf") if word in schema]
    return choices[0] if choices else None


def _plain(schema: Schema, name: str) -> Any:
    """A number, a text, a truth value or null."""
    kind = schema.get("type")
    if kind in ("integer", "number"):
        return schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1)
    if kind == "boolean":
        return True
    if kind == "null":
        return None
    text: str = _BY_FORMAT.get(schema.get("format", ""), name)
    return text.ljust(schema.get("minLength", 0), "x")[: schema.get("maxLength")]
