"""`callboard call`: calls an action and prints the envelope."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from callboard import strict_json
from callboard.cli.development import (
    adopt_running_stack,
    caller_flags,
    data_dir_option,
    signed_token,
    token_option,
)
from callboard.cli.follow import followed, print_result
from callboard.client.client import Client

__all__ = ["DEFAULT_URL", "call", "json_of"]

DEFAULT_URL = "http://127.0.0.1:8000"


@click.command()
@click.argument("action")
@click.argument("params", default="{}", metavar="['{json}']")
@click.option("--as", "subject", default="alice", show_default=True, help="The caller.")
@click.option("--async", "respond_async", is_flag=True, help="Do not wait for the result.")
@click.option("--follow", is_flag=True, help="With --async: show its progress, then the result.")
@click.option("--delay", type=float, metavar="SECONDS", help="Start it so much later.")
@click.option("--at", metavar="TIME", help="Start it then: ISO 8601, 2026-01-31T09:00:00Z.")
@click.option("--url", help="The API; by default that of the running `callboard up`.")
@token_option
@data_dir_option
def call(
    action: str,
    params: str,
    subject: str,
    respond_async: bool,
    follow: bool,
    delay: float | None,
    at: str | None,
    url: str | None,
    token: str | None,
    data_dir: Path,
) -> None:
    """Call ACTION and print the envelope; exit code 1 on a failure."""
    body = _object(params)
    running = adopt_running_stack(data_dir)
    client = Client(
        url or (running.url if running else DEFAULT_URL), token or signed_token(data_dir, subject)
    )
    reply = client.send(action, body, respond_async=respond_async or follow, delay=delay, at=at)
    envelope = reply.envelope
    if follow and reply.run_id:
        flags = caller_flags(subject=subject, url=url, token=token, data_dir=data_dir)
        envelope = followed(client, reply.run_id, flags)
    print_result(envelope)


def json_of(text: str, argument: str) -> Any:
    """The JSON of an argument; where it is none, the command ends and names it."""
    try:
        return strict_json.loads(text)
    except ValueError as error:
        raise click.BadParameter(
            f'not JSON: {error}. In a shell, put it in single quotes: \'{{"name": "Ada"}}\'',
            param_hint=argument,
        ) from error


def _object(text: str) -> dict[str, Any]:
    value = json_of(text, "params")
    if not isinstance(value, dict):
        raise click.BadParameter("must be a JSON object", param_hint="params")
    return value
