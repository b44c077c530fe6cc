"""`callboard schedules`: what runs by itself, past the API, for whoever runs the application."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from callboard.cli.development import adopt_running_stack, data_dir_option

if TYPE_CHECKING:
    from rich.table import Table

    from callboard.cli.timetable import Timetable

__all__ = ["schedules"]

PIPE_COLUMNS = 200  # a program that reads it gets whole lines


@click.group(invoke_without_command=True)
@data_dir_option
@click.pass_context
def schedules(context: click.Context, /, data_dir: Path) -> None:
    """List the schedules with their next fire, or look at one and steer it."""
    adopt_running_stack(data_dir)
    if context.invoked_subcommand is None:
        _print(_timetable().table())


@schedules.command()
@click.argument("name")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
def history(name: str, limit: int) -> None:
    """Print the last fires of NAME, newest first."""
    _print(_timetable().history(name, limit))


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
    from callboard import store
    from callboard.cli.timetable import Timetable

    click.get_current_context().call_on_close(store.close_database)
    return Timetable()


def _print(table: Table) -> None:
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else PIPE_COLUMNS).print(table)
