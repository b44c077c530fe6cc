"""Writes the table of settings.md from the settings object: ``make docs`` runs it first.

    python docs/generate_settings.py

The table lies between two marks of the page; the rest of the page is written by hand.
"""

from __future__ import annotations

import types
import typing
from pathlib import Path
from typing import Any, Literal

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from callboard.settings import Settings

__all__ = ["PAGE", "with_table"]

PAGE = Path(__file__).with_name("settings.md")
BEGIN, END = "<!-- generated: begin -->\n", "<!-- generated: end -->\n"

_KINDS = {bool: "`true` or `false`", int: "whole number", float: "number", SecretStr: "secret"}
_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most"}


def with_table(page: str) -> str:
    """The text of ``page`` with a current table between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{_table()}\n{END}{after}"


def _table() -> str:
    rows = [_row(name, field) for name, field in Settings.model_fields.items()]
    return "".join(["| variable | takes | default | meaning |\n|---|---|---|---|\n", *rows])


def _row(name: str, field: FieldInfo) -> str:
    if not field.description:
        raise ValueError(f"Settings.{name} has no docstring")
    cells = (f"`{field.validation_alias}`", _takes(field), _default(field), field.description)
    return "| " + " | ".join(cells) + " |\n"


def _takes(field: FieldInfo) -> str:
    kind = _plain(field.annotation)
    if typing.get_origin(kind) is Literal:
        return " or ".join(f"`{value}`" for value in typing.get_args(kind))
    bounds = [
        f"{words} {getattr(rule, name):g}"
        for rule in field.metadata
        for name, words in _BOUNDS.items()
        if hasattr(rule, name)
    ]
    text = "list" if typing.get_origin(kind) in (tuple, dict) else _KINDS.get(kind, "text")
    return ", ".join([text, *bounds])


def _plain(annotation: Any) -> Any:
    """The type itself, without ``| None`` and without ``Annotated``."""
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        annotation = next(part for part in typing.get_args(annotation) if part is not type(None))
    if typing.get_origin(annotation) is typing.Annotated:
        return _plain(typing.get_args(annotation)[0])
    return annotation


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined and field.default_factory is None:
        return "**required**"
    value = field.default
    if value in (None, (), PydanticUndefined):
        return "unset"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
