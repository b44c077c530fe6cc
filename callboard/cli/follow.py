"""How a command shows a run while it goes on: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from callboard.client.client import Client

__all__ = ["followed", "print_result"]

INTERRUPTED = 130  # the exit code of a command that Ctrl-C ended

Run = dict[str, Any]
Show = Callable[[Run], None]


def followed(client: Client, run_id: str, flags: str) -> dict[str, Any]:
    """The result of a run, once it has ended; until then it is shown on standard error.

    Ctrl-C ends the command, not the run, and tells how to come back to it. ``flags``: those
    with which `callboard runs` sees the run.
    """
    click.echo(f"Run {run_id}", err=True)
    run: Run = {}
    try:
        with _bar() if sys.stderr.isatty() else _lines() as show:
            for run in client.follow(run_id):
                show(run)
    except KeyboardInterrupt:
        _print_how_to_resume(run_id, flags)
        sys.exit(INTERRUPTED)
    result: dict[str, Any] = run["result"]
    return result


def print_result(envelope: dict[str, Any]) -> None:
    """Print the envelope, alone on standard output; exit code 1 on a failure."""
    click.echo(json.dumps(envelope, indent=2, ensure_ascii=False))
    if not envelope["success"]:
        sys.exit(1)


def _print_how_to_resume(run_id: str, flags: str) -> None:
    command = f"callboard runs {flags}".rstrip()
    click.echo("\nThe run goes on.", err=True)
    click.echo(f"  look at it  {command} follow {run_id}", err=True)
    click.echo(f"  cancel it   {command} cancel {run_id}", err=True)


@contextmanager
def _lines() -> Iterator[Show]:
    """A line for each change."""
    yield lambda run: click.echo(" ".join((run["status"], *_progress(run))), err=True)


def _progress(run: Run) -> Iterator[str]:
    if run["progress"]:
        yield f"{run['progress']['fraction']:.0%}"
        yield from (run["progress"]["message"] or "").split()  # whatever it holds, on one line


@contextmanager
def _bar() -> Iterator[Show]:
    """A bar; without an end in sight until the handler tells its progress."""
    from rich import progress
    from rich.console import Console
    from rich.table import Column

    one_line = Column(no_wrap=True, overflow="ellipsis")
    with progress.Progress(
        progress.TextColumn("{task.description:<9}"),
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        progress.TimeElapsedColumn(),
        # text, not markup: it came from the handler
        progress.TextColumn("{task.fields[message]}", markup=False, table_column=one_line),
        console=Console(stderr=True),
    ) as bar:
        task = bar.add_task("queued", total=None, message="")

        def show(run: Run) -> None:
            known = run["progress"] or {"fraction": None, "message": None}
            done = 1.0 if run["status"] == "succeeded" else known["fraction"]
            message = "" if run["completedAt"] else known["message"] or ""
            bar.update(task, description=run["status"], message=message)
            if done is not None or run["completedAt"]:
                bar.update(task, total=1.0, completed=done or 0.0)

        yield show
