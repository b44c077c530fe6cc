"""Options that choose many runs, and what is done to all of them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import click

from callboard.times import iso

__all__ = ["bulk_options", "bulk_request", "print_done"]

Command = TypeVar("Command", bound=Callable[..., Any])

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
FILTER = ("action", "status", "caller", "since", "until")
_MORE = {"replay": "these would be replayed again; choose the others with --since and --until"}
_AGO = re.compile(r"([0-9]{1,6})([smhd])")


def _moment(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """So long ago (``90m``), or an ISO 8601 time with its offset; as the API takes it."""
    if value is None:
        return None
    if ago := _AGO.fullmatch(value):
        return iso(datetime.now(UTC) - timedelta(**{UNITS[ago[2]]: int(ago[1])}))
    with contextlib.suppress(ValueError):
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is not None:
            return iso(moment)
    raise click.BadParameter(f"{value!r}: such as 2h, 30m, 1d, or 2026-01-31T08:00:00Z")


def _moment_option(name: str, text: str) -> Callable[[Command], Command]:
    return click.option(name, metavar="TIME", callback=_moment, help=text)


def bulk_options(command: Command) -> Command:
    """The options of a command for one run that choose many in its place."""
    for option in (
        click.option("--dry-run", is_flag=True, help="Count them only."),
        click.option("--limit", type=click.IntRange(1, 10_000), help="How many at most."),
        _moment_option("--until", "Enqueued then or earlier."),
        _moment_option("--since", "Enqueued then or later, such as 2h."),
        click.option("--caller", help="All runs of this caller."),
        click.option("--status", help="All runs of this status."),
        click.option("--action", help="All runs of this action."),
    ):
        command = option(command)
    return command


def bulk_request(do: str, run_id: str | None, chosen: Mapping[str, Any]) -> dict[str, Any] | None:
    """The body of ``POST /api/runs/bulk``; None where the command is for one run."""
    given = {name: chosen[name] for name in FILTER if chosen[name] is not None}
    many = bool(given or chosen["limit"] or chosen["dry_run"])
    if (run_id is not None) is many or (many and not given):
        choices = ", ".join(f"--{name}" for name in FILTER)
        raise click.UsageError(f"Give either the ID of a run, or which runs: {choices}.")
    if not many:
        return None
    limit = {"limit": chosen["limit"]} if chosen["limit"] else {}
    return {"do": do, "filter": given, "dryRun": chosen["dry_run"], **limit}


def print_done(request: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
    """What came of it."""
    done = "nothing done" if request["dryRun"] else f"{answer['done']} done"
    click.echo(f"{request['do']}: {answer['matched']} found, {done}")
    if not answer["complete"]:
        click.echo(f"There are more: {_MORE.get(request['do'], 'run it again')}.")
