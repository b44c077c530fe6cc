"""The command line: `callboard`."""

from __future__ import annotations

import sys
from typing import Any

import click

from callboard.cli.actions import actions
from callboard.cli.call import call
from callboard.cli.client import client
from callboard.cli.doctor import doctor
from callboard.cli.runs import runs
from callboard.cli.schedules import schedules
from callboard.cli.token import token
from callboard.cli.up import up
from callboard.errors import CallboardError

__all__ = ["main"]


class _Commands(click.Group):
    """A group that tells every `CallboardError` as one message, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except CallboardError as error:
            click.echo(f"callboard: {error}", err=True)
            sys.exit(1)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="callboard")
def main() -> None:
    """Callboard runs server actions: Python functions that clients call over HTTP."""


for _command in (up, token, call, actions, client, doctor, runs, schedules):
    main.add_command(_command)
