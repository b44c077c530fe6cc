"""JSON Schema as TypeScript types."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["comment", "property_name", "type_name", "type_of"]

Part = Mapping[str, Any]

_PLAIN = {
    "string": "string",
    "integer": "number",
    "number": "number",
    "boolean": "boolean",
    "null": "null",
}
_COMBINED = {"anyOf": " | ", "oneOf": " | ", "allOf": " & "}
_NAME = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*")


def type_of(schema: Part | bool, indent: str = "") -> str:
    """The type of what fits ``schema``; ``unknown`` where TypeScript has no words for it.

    ``indent``: of the line that the type begins on.
    """
    if isinstance(schema, bool):
        return "unknown" if schema else "never"
    if "$ref" in schema:
        return f"Models.{type_name(schema['$ref'].rpartition('/')[2])}"
    if "const" in schema or "enum" in schema:
        return " | ".join(json.dumps(value) for value in schema.get("enum", [schema.get("const")]))
    for key, joint in _COMBINED.items():
        if key in schema:
            return _joined(schema[key], joint, indent)
    kinds = schema.get("type")
    if isinstance(kinds, list):
        return _joined([{**schema, "type": kind} for kind in kinds], " | ", indent)
    return _typed(schema, indent)


def _joined(schemas: list[Part], joint: str, indent: str) -> str:
    kinds = dict.fromkeys(type_of(schema, indent) for schema in schemas)  # each once
    return joint.join(kinds)


def _typed(schema: Part, indent: str) -> str:
    if schema.get("type") == "array":
        return _array(schema, indent)
    if schema.get("type") == "object":
        return _object(schema, indent)
    return _PLAIN.get(str(schema.get("type")), "unknown")


def _array(schema: Part, indent: str) -> str:
    first = [type_of(item, indent) for item in schema.get("prefixItems", [])]
    if first:
        return f"[{', '.join(first)}]"
    return f"({type_of(schema.get('items', True), indent)})[]"


def _object(schema: Part, indent: str) -> str:
    """An object that also takes other properties is told by the ones that it names."""
    required = schema.get("required", [])
    lines: list[str] = []
    for name, value in schema.get("properties", {}).items():
        inner = f"{indent}  "
        lines += comment(value.get("description", ""), inner)
        mark = "" if name in required else "?"
        lines.append(f"{inner}{property_name(name)}{mark}: {type_of(value, inner)};")
    if lines:
        return "\n".join(["{", *lines, f"{indent}}}"])
    return f"{{ [name: string]: {type_of(schema.get('additionalProperties', True), indent)} }}"


def type_name(name: str) -> str:
    """The name of a schema as one of a type."""
    safe = re.sub(r"[^A-Za-z0-9_$]", "_", name)
    return safe if _NAME.fullmatch(safe) else f"_{safe}"


def property_name(name: str) -> str:
    """A property's name, in quotes where it needs them."""
    return name if _NAME.fullmatch(name) else json.dumps(name)


def comment(text: str, indent: str) -> Iterator[str]:
    """The lines of a comment; none for no text. Nothing in it ends the comment early."""
    lines = text.strip().replace("*/", "* /").splitlines()
    if len(lines) == 1:
        yield f"{indent}/** {lines[0]} */"
    elif lines:
        yield f"{indent}/**"
        yield from (f"{indent} * {line}".rstrip() for line in lines)
        yield f"{indent} */"
