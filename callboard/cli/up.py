"""`callboard up`: starts everything on this machine."""

from __future__ import annotations

from pathlib import Path

import click

from callboard.cli.development import data_dir_option, from_env_file

__all__ = ["up"]


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The API's.")
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True)
@click.option("--flower-port", type=click.IntRange(1, 65535), default=5555, show_default=True)
@click.option("--workers", type=click.IntRange(min=1), help="Child processes of the worker.")
@click.option(
    "--reload", is_flag=True, help="Restart when the actions, or what they import, change."
)
@click.option("--quiet", is_flag=True, help="The logs go to files only.")
@data_dir_option
def up(
    host: str,
    port: int,
    flower_port: int,
    workers: int | None,
    reload: bool,
    quiet: bool,
    data_dir: Path,
) -> None:
    """Start the API, a worker, beat, Flower and the servers that they need; Ctrl-C stops all.

    A server is started only where REDIS_URL or MONGODB_URI, of the environment or of .env, does not
    name one.
    """
    from callboard.settings import default_workers
    from callboard.stack.up import UpOptions, up as run

    run(
        UpOptions(
            host=host,
            port=port,
            flower_port=flower_port,
            data_dir=data_dir,
            workers=workers or default_workers(),
            reload=reload,
            show=None if quiet else _show,
            announce=click.echo,
            from_env_file=from_env_file(),
        )
    )


def _show(process: str, line: str) -> None:
    click.echo(f"{process:<7} | {line}")
