"""Params: what a handler's second parameter says of the body, and a body validated by it.

Whatever pydantic can validate as a JSON object may annotate it: a model, a dataclass, a TypedDict,
``dict[str, int]``, a generic of these, a union, a root model, with ``Annotated`` around it. Bodies
are validated in pydantic's JSON mode, from their text: a strict model takes a datetime, a UUID or
an enum as JSON writes it, and no validator can reach the dict that the body is kept as.
"""

from __future__ import annotations

import inspect
import json
import time
import typing
from collections.abc import Iterator, Mapping, MutableMapping
from functools import cached_property
from types import SimpleNamespace
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.json_schema import GenerateJsonSchema

from callboard import strict_json
from callboard.errors import EXITS, ConfigurationError, InvalidParams

__all__ = ["MAX_ISSUES", "MAX_ISSUES_BYTES", "Params", "annotated_with", "resolved_annotation"]

MAX_ISSUES = 100
MAX_ISSUES_BYTES = 60 * 1024  # of all issues, as JSON, so that the response stays under 64 KiB

_MAX_TEXT = 500  # characters of an issue's path and of its message
_SMALL_BODY = 16 * 1024  # bytes, up to which its names may be as long as they are
_LARGE_BODY = 128 * 1024  # bytes, from which on others are served in between
_MAX_PATHS = 32 * 1024 * 1024  # bytes of the paths of all values: pydantic keeps one per issue

Schema = Mapping[str, Any]


class Params:
    """The second parameter of a handler.

    Its annotation is read when it is first needed: it may name what the module defines further
    down. `check` reads it, at the end of the start.
    """

    def __init__(self, handler: Any, name: str, where: str) -> None:
        self._function = inspect.unwrap(handler)
        self._name = name
        self._where = where

    def check(self) -> None:
        """Raise `ConfigurationError`, with file and line, for an annotation that cannot be used."""
        if self.adapter is not None and not _takes_object(self._schema, self._schema):
            raise self._unusable(
                "a body is a JSON object, and this is none. "
                "Annotate it with a model, a TypedDict or dict"
            )

    @cached_property
    def adapter(self) -> TypeAdapter[Any] | None:
        """What validates a body; None: any JSON object is right, and stays a dict."""
        annotation = self._annotation()
        if _is_plain(annotation):
            return None
        try:
            adapter = TypeAdapter(annotation)
            adapter.json_schema(schema_generator=_Generator)
        except Exception as error:  # whatever a type of the application's raises
            raise self._unusable(str(error).partition("\n")[0]) from error
        return adapter

    @property
    def schema(self) -> Schema | None:
        """The JSON schema of a body; None: any JSON object is right."""
        return None if self.adapter is None else self._schema

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names that a body's fields may have, aliases among them; none for free names."""
        if self.adapter is None:
            return ()
        return tuple(dict.fromkeys(_names(self.adapter.core_schema, {}, set())))

    @cached_property
    def is_required(self) -> bool:
        """Whether an empty body cannot be right, as the annotation says."""
        return self.adapter is not None and _requires(self._schema, self._schema)

    def validate(self, params: Mapping[str, Any]) -> Any:
        """What the handler gets for a body; raises `InvalidParams` with the issues."""
        if self.adapter is None:
            return params
        text = strict_json.dumps(params)
        _refuse_long_names(params, text)
        _let_others_go_on(text)
        try:
            return self.adapter.validate_json(text)
        except ValidationError as error:
            _let_others_go_on(text)
            refused = _refused(error)
        except EXITS as error:
            raise RuntimeError(f"a validator raised {type(error).__name__}") from error
        raise refused

    def display(self, params: Mapping[str, Any]) -> str:
        """The names of a body's fields that the annotation knows, and no values."""
        if not self.names:
            return f"{{{len(params)} fields}}" if params else "{}"
        return "{" + ", ".join(f"{name}: ***" for name in self.names if name in params) + "}"

    def _annotation(self) -> Any:
        try:
            return resolved_annotation(self._function, self._name)
        except Exception as error:  # a name that the module does not have, most often
            raise self._unusable(
                f"{error}. Define or import it in the module, outside `if TYPE_CHECKING:`"
            ) from error

    @cached_property
    def _schema(self) -> Schema:
        assert self.adapter is not None  # noqa: S101 - the callers looked
        return self.adapter.json_schema(schema_generator=_Generator)

    def _unusable(self, why: str) -> ConfigurationError:
        said = self._function.__annotations__.get(self._name)
        shown = said if isinstance(said, str) else getattr(said, "__name__", said)
        return ConfigurationError(
            f"{self._where}: the annotation of {self._name}, {shown!s:.200}, cannot be used: {why}."
        )


def annotated_with(handler: Any, kind: type) -> bool:
    """Whether the annotation of its first parameter is ``kind``, which perhaps only a type checker
    sees."""
    function = inspect.unwrap(handler)
    name = next(iter(inspect.signature(function).parameters), "")
    try:
        annotation = resolved_annotation(function, name)
        return (typing.get_origin(annotation) or annotation) is kind
    except Exception:  # noqa: BLE001 - a name under `if TYPE_CHECKING:`
        said = function.__annotations__[name]
        return isinstance(said, str) and _bare(said) == kind.__name__


def _bare(annotation: str) -> str:
    """``ActionContext`` of ``callboard.ActionContext[Clients]``."""
    return annotation.partition("[")[0].rpartition(".")[2]


def resolved_annotation(function: Any, name: str) -> Any:
    """The annotation, resolved alone: others may name what only a type checker sees."""
    annotations = {name: function.__annotations__.get(name, Any)}
    return typing.get_type_hints(
        SimpleNamespace(__annotations__=annotations),
        globalns=function.__globals__,
        include_extras=True,
    )[name]


def _is_plain(annotation: Any) -> bool:
    """Whether it says no more than that the body is an object."""
    kind, arguments = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
    if kind in (Any, object):
        return True
    return kind in (dict, Mapping, MutableMapping) and arguments in ((), (str, Any), (str, object))


# What a JSON schema says of the whole body


class _Generator(GenerateJsonSchema):
    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> dict[str, Any]:
        """What JSON Schema has no words for, a callable say, cannot come as JSON."""
        return {"not": {}}


def _takes_object(schema: Schema, document: Schema) -> bool:
    if (choices := _choices(schema, document)) is not None:
        return any(_takes_object(choice, document) for choice in choices)
    if "not" in schema:
        return False
    values = schema.get("enum", [schema["const"]] if "const" in schema else [{}])
    return schema.get("type", "object") == "object" and any(isinstance(v, dict) for v in values)


def _requires(schema: Schema, document: Schema) -> bool:
    if (choices := _choices(schema, document)) is not None:
        objects = [choice for choice in choices if _takes_object(choice, document)]
        return all(_requires(choice, document) for choice in objects)
    return bool(schema.get("required"))


def _choices(schema: Schema, document: Schema) -> list[Schema] | None:
    """What the schema is one of; None where it speaks for itself."""
    if "$ref" in schema:
        return [document["$defs"][schema["$ref"].rpartition("/")[2]]]
    choices: list[Schema] | None = schema.get("anyOf") or schema.get("oneOf")
    return choices


def _names(schema: Any, known: dict[str, Any], seen: set[str]) -> Iterator[str]:
    """The names of the fields in pydantic's core schema, and what they may be called instead."""
    if schema["type"] == "definitions":
        known = {one["ref"]: one for one in schema["definitions"]}
    if (ref := schema.get("schema_ref")) is not None and ref not in seen:
        yield from _names(known[ref], known, {*seen, ref})
    if schema["type"] in ("model-fields", "typed-dict", "dataclass-args"):
        fields = schema["fields"]
        for name, field in fields.items() if isinstance(fields, dict) else _named(fields):
            yield from _called(name, field.get("validation_alias"))
        return
    choices = schema.get("choices", ())
    for choice in choices.values() if isinstance(choices, dict) else choices:
        yield from _names(choice[0] if isinstance(choice, tuple) else choice, known, seen)
    for inner in ("schema", "json_schema", "lax_schema"):
        if inner in schema:
            yield from _names(schema[inner], known, seen)


def _named(fields: list[Any]) -> Iterator[tuple[str, Any]]:
    return ((field["name"], field) for field in fields)  # of a dataclass


def _called(name: str, alias: Any) -> Iterator[str]:
    """A field's name and aliases: a text, a path, or several of these."""
    yield name
    if isinstance(alias, str):
        yield alias
    for one in alias if isinstance(alias, list) else ():
        yield str(one[0] if isinstance(one, list) else one)


# What does not fit


def _refuse_long_names(params: Mapping[str, Any], text: bytes) -> None:
    """Raise `InvalidParams` where the issues' paths could take a memory that no body is worth."""
    if len(text) <= _SMALL_BODY:
        return
    longest = 0
    level: list[Any] = [dict(params)]
    while level:
        objects = [one for one in level if isinstance(one, dict)]
        longest += max((len(name) for one in objects for name in one), default=0)
        lists = [one for one in level if isinstance(one, list)]
        level = [child for one in objects for child in one.values()]
        level += [child for one in lists for child in one]
    values = sum(text.count(mark) for mark in (b",", b"[", b"{"))
    if longest * values > _MAX_PATHS:
        raise InvalidParams(
            "Invalid params: the names in the body are too long for so many values",
            [{"path": "", "message": f"Paths of {longest} characters to {values} values"}],
        )


def _let_others_go_on(text: bytes) -> None:
    """Before work on a large body that nothing interrupts: 260,000 issues take 70 ms to find.

    In the API this is gevent's sleep, in which what has arrived meanwhile is served.
    """
    if len(text) > _LARGE_BODY:
        time.sleep(0.001)


def _refused(error: ValidationError) -> InvalidParams:
    """The error as the caller reads it: its first issues."""
    issues: list[dict[str, str]] = []
    size = 0
    for row in _rows(error):
        path = ".".join(str(part) for part in row["loc"])
        issue = {"path": path[:_MAX_TEXT], "message": row["msg"][:_MAX_TEXT]}
        size += len(strict_json.dumps(issue)) + 1
        if len(issues) == MAX_ISSUES or (issues and size > MAX_ISSUES_BYTES):
            break
        issues.append(issue)
    first, count = issues[0], error.error_count()
    more = f" (the first {len(issues)} of {count} issues)" if count > len(issues) else ""
    text = f"Invalid params: {first['path'] or 'body'}: {first['message']}{more}"
    return InvalidParams(text, issues)


def _rows(error: ValidationError) -> Iterator[dict[str, Any]]:
    """The issues, one after the other.

    pydantic writes a text of 260,000 issues in 50 ms; as dicts they take 250 ms.
    """
    text = error.json(include_url=False, include_input=False, include_context=False)
    position = 1  # behind the bracket
    while position < len(text) - 1:
        row, position = _read_row(text, position)
        yield row
        position += 1


_read_row = json.JSONDecoder().raw_decode
