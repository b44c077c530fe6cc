"""`callboard schedules`: what runs by itself, past the API, for whoever runs the application."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import click

from callboard.cli.development import adopt_running_stack, data_dir_option
from callboard.cli.listing import json_option, print_json, print_rows

if TYPE_CHECKING:
    from callboard.cli.timetable import Timetable

__all__ = ["schedules"]

COLUMNS = ("name", "action", "when", "next, schedule time", "next, local time", "last")
FIRES = ("planned, local time", "by", "outcome", "started", "took", "attempts", "run")


@click.group(invoke_without_command=True)
@click.option(
    "--limit",
    type=click.IntRange(1, 1000),
    default=100,
    show_default=True,
    help="Of those that handlers have put.",
)
@click.option("--after", help="Those of these names behind this one.")
@json_option
@data_dir_option
@click.pass_context
def schedules(
    context: click.Context, /, limit: int, after: str | None, as_json: bool, data_dir: Path
) -> None:
    """List the schedules with their next fire, or look at one and steer it."""
    adopt_running_stack(data_dir)
    if context.invoked_subcommand is not None:
        return
    rows, following = _timetable().schedules(after, limit)
    if as_json:
        print_json(rows)
    else:
        print_rows(COLUMNS, [_cells(row) for row in rows])
    if following is not None:
        click.echo(f"There are more: callboard schedules --after {following}", err=True)


@schedules.command()
@click.argument("name")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
@json_option
def history(name: str, limit: int, as_json: bool) -> None:
    """Print the last fires of NAME, newest first."""
    rows = _timetable().history(name, limit)
    if as_json:
        print_json(rows)
    else:
        print_rows(FIRES, [_fire(row) for row in rows])


@schedules.command()
@click.argument("name")
def trigger(name: str) -> None:
    """Run NAME's action now, and print the run id."""
    click.echo(_timetable().trigger(name))


@schedules.command()
@click.argument("name")
def pause(name: str) -> None:
    """Stop NAME from firing until it is resumed; a restart does not resume it."""
    _timetable().pause(name)
    click.echo(f"{name} is paused")


@schedules.command()
@click.argument("name")
def resume(name: str) -> None:
    """Let NAME fire again, from now on."""
    click.echo(f"{name} fires next at {_timetable().resume(name)}")


def _timetable() -> Timetable:
    """Loaded here: the other commands need no client of the database."""
    from callboard.cli.timetable import Timetable

    timetable = Timetable()
    click.get_current_context().call_on_close(timetable.close)
    return timetable


def _cells(row: dict[str, Any]) -> list[object]:
    from callboard.cli.timetable import local

    planned = row["next"]
    theirs = planned and f"{planned.astimezone(ZoneInfo(row['zone'])):%Y-%m-%d %H:%M:%S %Z}"
    names = (row["name"], row["action"], row["when"])
    return [*names, theirs or "paused", local(planned) or "paused", local(row["last"])]


def _fire(row: dict[str, Any]) -> list[object]:
    from callboard.cli.timetable import local

    return [
        local(row["planned"]),
        row["by"],
        row["outcome"],
        local(row["started"]),
        None if row["seconds"] is None else f"{row['seconds']:.1f} s",
        row["attempts"],
        row["runId"],
    ]
