"""The command line: `callboard`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NoReturn

import click
from click.core import ParameterSource

from callboard.cli.actions import actions
from callboard.cli.call import call
from callboard.cli.client import client
from callboard.cli.doctor import doctor
from callboard.cli.init import init
from callboard.cli.programs import COMMANDS as PROGRAMS
from callboard.cli.runs import runs
from callboard.cli.schedules import schedules
from callboard.cli.token import token
from callboard.cli.up import up
from callboard.errors import CallboardError
from callboard.stack.env_file import adopt_env_file

__all__ = ["main"]

WITHOUT_ENV_FILE = {init.name, *(program.name for program in PROGRAMS)}


class _Commands(click.Group):
    """A group that tells a `CallboardError` or a missing extra as one message, no traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except CallboardError as error:
            _fail(str(error))
        except ModuleNotFoundError as error:
            if not error.name or error.name.startswith("callboard"):
                raise
            _fail(
                f"{ctx.invoked_subcommand} needs {error.name}, which comes with the extra "
                f"`server`: pip install 'callboard[server]'"
            )


def _fail(message: str) -> NoReturn:
    click.echo(f"callboard: {message}", err=True)
    sys.exit(1)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="callboard")
@click.option(
    "--env-file",
    type=click.Path(path_type=Path),
    default=".env",
    show_default=True,
    help="Settings that the environment does not have. web, worker, beat and flower read none.",
)
@click.pass_context
def main(ctx: click.Context, env_file: Path) -> None:
    """Callboard runs server actions: Python functions that clients call over HTTP."""
    if ctx.invoked_subcommand not in WITHOUT_ENV_FILE:
        named = ctx.get_parameter_source("env_file") is not ParameterSource.DEFAULT
        if named and not env_file.exists():
            raise click.BadParameter(f"there is no file {env_file}", param_hint="--env-file")
        ctx.obj = adopt_env_file(env_file)


for _command in (init, up, token, call, actions, client, doctor, runs, schedules, *PROGRAMS):
    main.add_command(_command)
