"""`callboard web`, `worker`, `beat`, `flower`: the standard programs with Callboard's settings."""

from __future__ import annotations

from typing import get_args

import click

from callboard import programs

__all__ = ["COMMANDS"]

_HELP: dict[programs.Name, str] = {
    "web": "The API: gunicorn with gevent.",
    "worker": "A worker: celery worker.",
    "beat": "The beat, which fires schedules: celery beat.",
    "flower": "Flower, which shows runs: read-only, on 127.0.0.1.",
}


def _command(name: programs.Name) -> click.Command:
    @click.command(
        name,
        help=f"{_HELP[name]} FLAGS are the program's own (`callboard {name} -- --help`).",
        context_settings={"ignore_unknown_options": True},
    )
    @click.argument("flags", nargs=-1, type=click.UNPROCESSED, metavar="[FLAGS]...")
    def start(flags: tuple[str, ...]) -> None:
        programs.run(name, flags)

    return start


COMMANDS = tuple(map(_command, get_args(programs.Name)))
