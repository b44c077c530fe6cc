"""How commands show rows: columns that fit a terminal, whole lines in a pipe, or JSON."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

from callboard.times import iso

__all__ = [
    "age",
    "json_option",
    "print_json",
    "print_rows",
    "printable",
    "table",
    "terminal_width",
]

GAP = "  "
NARROWEST = 6  # characters that a column is cut down to

Command = TypeVar("Command", bound=Callable[..., Any])


def json_option(command: Command) -> Command:
    """The option --json."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(
        command
    )


def print_json(value: object) -> None:
    """Print it, indented."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=_moment))


def print_rows(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table. Its first column is never cut: it is for copying."""
    for line in table(columns, rows, terminal_width()):
        click.echo(line)


def terminal_width() -> int | None:
    """The columns of the terminal; None in a pipe."""
    on_terminal = sys.stdout.isatty() or os.environ.get("COLUMNS")
    return shutil.get_terminal_size((80, 24)).columns if on_terminal else None


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], width: int | None) -> list[str]:
    """The lines of a table of at most ``width`` characters; None: whole, however long.

    The widest columns are cut first; those for which there is no room at all are left out, from
    the last one on.
    """
    texts = [list(columns), *([_text(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    if width is not None:
        widths = _fitting(widths, width)
    cut = [[_cut(text, room) for text, room in zip(row, widths, strict=False)] for row in texts]
    return [
        GAP.join(text.ljust(room) for text, room in zip(row, widths, strict=True)).rstrip()
        for row in cut
    ]


def age(moment: str | None) -> str:
    """How long ago a moment of the API's was: ``42s``, ``3m``, ``5h``, ``2d``."""
    if moment is None:
        return ""
    seconds = int((datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds())
    for length, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{max(seconds, 0)}s"


def _fitting(widths: list[int], width: int) -> list[int]:
    rest = list(widths)
    while len(rest) > 1 and _total(rest) > width:
        widest = max(range(1, len(rest)), key=rest.__getitem__)
        if rest[widest] > NARROWEST:
            rest[widest] -= 1
        else:
            rest = rest[:-1]
    return rest


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(GAP) * (len(widths) - 1)


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[: room - 1]}…"


def _text(cell: object) -> str:
    """A cell on one line; what would steer a terminal is shown as ?."""
    return printable(" ".join(str("" if cell is None else cell).split()))


def printable(text: str) -> str:
    """The line, with ? for what would steer a terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _moment(value: object) -> str:
    """JSON's default for a moment: as the API writes it."""
    if isinstance(value, datetime):
        return iso(value)
    raise TypeError(f"{value!r} is no JSON")
