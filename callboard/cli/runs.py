"""`callboard runs`: the list of runs; following one, canceling it, starting a lost one again."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from callboard.cli.development import (
    adopt_running_stack,
    caller_flags,
    data_dir_option,
    signed_token,
)
from callboard.cli.follow import followed, print_result
from callboard.client import Client
from callboard.errors import ConfigurationError, ServiceUnavailable

__all__ = ["runs"]

DEFAULT_URL = "http://127.0.0.1:8000"
TIMEOUT = 10.0  # seconds
STOP_SECONDS = 7  # a handler that does not end by itself is stopped after 5
COLUMNS = ("Run", "Action", "Status", "Caller", "Attempts", "Enqueued", "Error")

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Api:
    """The API and the token that it is asked with."""

    url: str
    token: str
    flags: str  # those that say so on the command line

    def ask(self, method: str, path: str, **params: str) -> Any:
        """The data of the answer; a failure ends the command with its text."""
        import httpx

        headers = {"Authorization": f"Bearer {self.token}"}
        try:
            response = httpx.request(
                method, f"{self.url}{path}", params=params, headers=headers, timeout=TIMEOUT
            )
            envelope = response.json()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise ServiceUnavailable(f"{self.url} does not answer: {error}") from error
        if not envelope["success"]:
            raise click.ClickException(f"{response.status_code}: {envelope['error']}")
        return envelope["data"]


def _api_options(command: Command) -> Command:
    for option in (
        click.option("--as", "subject", help="The caller; by default the owner."),
        click.option("--url", help="The API; by default that of the running `callboard up`."),
        click.option("--token", envvar="CALLBOARD_TOKEN", help="Instead of a signed one."),
        data_dir_option,
    ):
        command = option(command)
    return command


@click.group(invoke_without_command=True)
@click.option("--lost", is_flag=True, help="Only those that ended `Worker lost`.")
@click.option("--action", help="Only those of this action.")
@click.option("--status", help="queued, running, succeeded, failed or canceled.")
@click.option("--limit", type=click.IntRange(1, 200), default=50, show_default=True)
@_api_options
@click.pass_context
def runs(
    ctx: click.Context,
    /,
    lost: bool,
    action: str | None,
    status: str | None,
    limit: int,
    **options: Any,
) -> None:
    """List runs, newest first, or look after one; the owner sees all."""
    api = ctx.obj = _api(**options)
    if ctx.invoked_subcommand is not None:
        return
    params = {"limit": str(limit), "action": action, "status": status}
    if lost:
        params["lost"] = "true"
    given = {name: value for name, value in params.items() if value is not None}
    _print(api.ask("GET", "/api/runs", **given)["runs"])


@runs.command()
@click.argument("run_id", metavar="ID")
@click.pass_obj
def follow(api: _Api, run_id: str) -> None:
    """Show a run's progress until it has ended, then its result; exit code 1 on a failure."""
    print_result(followed(Client(api.url, api.token), run_id, api.flags))


@runs.command()
@click.argument("run_id", metavar="ID")
@click.pass_obj
def cancel(api: _Api, run_id: str) -> None:
    """Cancel a run: a queued one never starts, a running one is stopped."""
    api.ask("POST", f"/api/runs/{run_id}/cancel")
    _print_state(api.ask("GET", f"/api/runs/{run_id}", wait=str(STOP_SECONDS)))


@runs.command()
@click.argument("run_id", metavar="ID")
@click.pass_obj
def retry(api: _Api, run_id: str) -> None:
    """Start a run that ended `Worker lost` again, under its own id."""
    _print_state(api.ask("POST", f"/api/runs/{run_id}/retry"))


def _print_state(run: dict[str, Any]) -> None:
    click.echo(f"{run['runId']} {run['action']}: {run['status']}")


def _api(*, subject: str | None, url: str | None, token: str | None, data_dir: Path) -> _Api:
    running = adopt_running_stack(data_dir)
    flags = caller_flags(subject=subject, url=url, token=token, data_dir=data_dir)
    subject = subject or os.environ.get("OWNER_USER_ID")
    if not token and not subject:
        raise ConfigurationError("There is no owner: set OWNER_USER_ID, or give --as or --token.")
    return _Api(
        url=(url or (running.url if running else DEFAULT_URL)).rstrip("/"),
        token=token or signed_token(data_dir, str(subject)),
        flags=flags,
    )


def _print(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not rows:
        click.echo("No runs.")
        return
    table = Table(*COLUMNS, box=None, pad_edge=False)
    table.columns[0].no_wrap = True  # an id is for copying
    for row in rows:
        cells = (
            *(row[name] for name in ("runId", "action", "status")),
            row["createdBy"] or "anonymous",
            str(row["attempts"]),
            row["enqueuedAt"],
            row["error"] or "",
        )
        table.add_row(*map(Text, cells))  # text, not markup: it came from callers
    Console().print(table)
