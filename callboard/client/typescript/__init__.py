"""A TypeScript client for one application: its types, from the OpenAPI document, and a runtime.

The client is one file without dependencies. ``types``: JSON Schema as TypeScript. ``runtime.ts``:
the part that is the same for every application.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any

from callboard.client.typescript.types import comment, property_name, type_name, type_of

__all__ = ["typescript_client"]

Part = Mapping[str, Any]

_HEAD = (
    "// Written by `callboard client --lang ts`. Do not edit it: write it again when the actions\n"
    "// change."
)
_PREFIX = "/api/actions/"
_ALWAYS = ("Failure", "Run")  # what the runtime itself names


def typescript_client(document: Part) -> str:
    """The text of the client; ``document``: the OpenAPI document of a Callboard."""
    runtime = (files(__package__) / "runtime.ts").read_text()
    return "\n\n".join((_HEAD, _actions(document), _models(document), runtime))


def _actions(document: Part) -> str:
    lines = [
        "/** Every action: what it takes, the data of its success, the codes of its failures. */"
    ]
    lines.append("export interface Actions {")
    for path, item in sorted(document["paths"].items()):
        if path.startswith(_PREFIX):
            lines += _action(path.removeprefix(_PREFIX), item["post"])
    return "\n".join([*lines, "}"])


def _action(name: str, operation: Part) -> Iterator[str]:
    params = operation["requestBody"]["content"]["application/json"]["schema"]
    yield from comment(operation.get("description", ""), "  ")
    yield (
        f"  {property_name(name)}: {{ params: {type_of(params)}; "
        f"data: {type_of(_data(operation))}; code: {type_of(_code(operation))} }};"
    )


def _data(operation: Part) -> Part:
    """The schema of the data of a success."""
    data: Part = _answer(operation)[0]["properties"]["data"]
    return data


def _code(operation: Part) -> Part:
    """The schema of the code of a failure: any, where the handler declares none."""
    declared = _answer(operation)[1].get("allOf", [])
    code: Part = declared[1]["properties"]["code"] if declared else {"type": "string"}
    return code


def _answer(operation: Part) -> Sequence[Part]:
    """The schemas of a success and of a failure."""
    answer = operation["responses"]["200"]["content"]["application/json"]["schema"]
    schemas: Sequence[Part] = answer["anyOf"]
    return schemas


def _models(document: Part) -> str:
    schemas = document["components"]["schemas"]
    lines = ["/** The models of the params and results. */", "export namespace Models {"]
    for name in sorted(_used(document)):
        schema = schemas[name]
        lines += comment(schema.get("description", ""), "  ")
        lines.append(f"  export type {type_name(name)} = {type_of(schema, '  ')};")
    return "\n".join([*lines, "}"])


def _used(document: Part) -> set[str]:
    """The schemas that the actions, or the runtime, lead to."""
    schemas = document["components"]["schemas"]
    used: set[str] = set()
    waiting = [*_ALWAYS]
    for path, item in document["paths"].items():
        if path.startswith(_PREFIX):
            content = item["post"]["requestBody"]["content"]
            waiting += _references([content, _data(item["post"]), _code(item["post"])])
    while waiting:
        name = waiting.pop()
        if name not in used:
            used.add(name)
            waiting += _references(schemas[name])
    return used


def _references(part: Any) -> Iterator[str]:
    if isinstance(part, Mapping):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"].rpartition("/")[2]
        for value in part.values():
            yield from _references(value)
    elif isinstance(part, list):
        for value in part:
            yield from _references(value)
