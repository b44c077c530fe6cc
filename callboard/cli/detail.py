"""How `callboard runs show` shows what the owner is told of a run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from callboard.cli.listing import printable, table

__all__ = ["detail_lines"]

Detail = dict[str, Any]

# titles, and what is below them
_ATTEMPTS = {
    **{"Attempt": "attempt", "Status": "status", "Started": "startedAt", "Ended": "completedAt"},
    **{"Worker": "worker", "Error": "error"},
}
_STEPS = {"Kind": "kind", "Name": "name", "Started": "startedAt", "Ended": "completedAt"}
_CHILDREN = {"Run": "runId", "Action": "action", "Status": "status", "Error": "error"}


def detail_lines(detail: Detail, width: int | None) -> Iterator[str]:
    """Its params, attempts, log lines, steps and children, as far as there are any."""
    params = detail["params"]
    text = json.dumps(params, ensure_ascii=False) if params is not None else "(no longer kept)"
    yield f"{'params':<12} {printable(text)}"
    yield from _section(_ATTEMPTS, detail["attempts"], width)
    yield from _tracebacks(detail)
    yield from _log(detail)
    yield from _section(_STEPS, detail["steps"], width)
    children = detail["children"]
    yield from _section(_CHILDREN, children["runs"], width)
    if children["after"]:
        yield f"and more: callboard runs --parent {detail['runId']}"


def _section(columns: dict[str, str], rows: list[Detail], width: int | None) -> Iterator[str]:
    if rows:
        yield ""
        cells = [[row[name] for name in columns.values()] for row in rows]
        yield from table([*columns], cells, width)


def _tracebacks(detail: Detail) -> Iterator[str]:
    for attempt in detail["attempts"]:
        if attempt["traceback"]:
            yield ""
            yield f"Traceback of attempt {attempt['attempt']}"
            yield from map(printable, attempt["traceback"].splitlines())


def _log(detail: Detail) -> Iterator[str]:
    lines = detail["log"]
    if not lines:
        return
    yield ""
    yield "Log"
    for attempt in detail["attempts"]:
        if attempt["linesDropped"]:
            yield f"(attempt {attempt['attempt']}: {attempt['linesDropped']} earlier lines dropped)"
    for line in lines:
        head = f"{line['at']} {line['attempt']} {line['level']:<8} {line['source']:<8}"
        first, *rest = line["text"].splitlines() or [""]
        yield printable(f"{head} {first}")
        yield from (f"    {printable(text)}" for text in rest)
