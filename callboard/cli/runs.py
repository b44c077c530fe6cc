"""`callboard runs`: the list of runs; following one, canceling it, telling it what it waits for,
starting a lost one, or any call, again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import click

from callboard.cli.bulk import bulk_options, bulk_request, print_done
from callboard.cli.call import DEFAULT_URL, json_of
from callboard.cli.detail import detail_lines
from callboard.cli.development import (
    adopt_running_stack,
    caller_flags,
    data_dir_option,
    signed_token,
    token_option,
)
from callboard.cli.follow import followed, print_result
from callboard.cli.listing import (
    age,
    json_option,
    print_json,
    print_rows,
    printable,
    terminal_width,
)
from callboard.client.client import Client
from callboard.errors import ConfigurationError, Forbidden, Unauthorized

__all__ = ["runs"]

TOO_LATE = "nothing has changed: one came before, or it is too late"
STOP_SECONDS = 7  # a handler that does not end by itself is stopped after 5
COLUMNS = ("Run", "Action", "Status", "Age", "Caller", "Error")
ERRORS = ("Last run", "Count", "Action", "Exception", "Error", "Age")

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Api:
    """The API, and what of the command line says who asks it."""

    client: Client
    flags: str

    def ask(self, method: str, path: str, *, body: Any = None, **params: str) -> Any:
        """The data of the answer; a failure ends the command with its text."""
        reply = self.client.request(method, path, json=body, params=params)
        if not reply.envelope["success"]:
            raise click.ClickException(f"{reply.status}: {reply.envelope['error']}")
        return reply.envelope["data"]

    def detail(self, run_id: str) -> dict[str, Any] | None:
        """What the owner is told of a run; None for anybody else."""
        with suppress(Forbidden, Unauthorized):
            return self.client.detail(run_id)
        return None


def _api_options(command: Command) -> Command:
    for option in (
        click.option("--as", "subject", help="The caller; by default the owner."),
        click.option("--url", help="The API; by default that of the running `callboard up`."),
        token_option,
        data_dir_option,
    ):
        command = option(command)
    return command


@click.group(invoke_without_command=True)
@click.option("--lost", is_flag=True, help="Only those that ended `Worker lost`.")
@click.option("--action", help="Only those of this action.")
@click.option("--status", help="queued, waiting, running, succeeded, failed or canceled.")
@click.option("--parent", metavar="ID", help="Only those that this run has started.")
@click.option("--limit", type=click.IntRange(1, 200), default=50, show_default=True)
@json_option
@_api_options
@click.pass_context
def runs(
    ctx: click.Context,
    /,
    lost: bool,
    action: str | None,
    status: str | None,
    parent: str | None,
    limit: int,
    as_json: bool,
    **options: Any,
) -> None:
    """List runs, newest first, or look after one; the owner sees all."""
    ctx.obj = partial(_api, **options)  # made when it is needed: --help needs none
    if ctx.invoked_subcommand is not None:
        return
    params = {"limit": str(limit), "action": action, "status": status, "parent": parent}
    if lost:
        params["lost"] = "true"
    given = {name: value for name, value in params.items() if value is not None}
    rows = ctx.obj().ask("GET", "/api/runs", **given)["runs"]
    if as_json:
        print_json(rows)
    elif rows:
        print_rows(COLUMNS, [_cells(row) for row in rows])
    else:
        click.echo("No runs.")


@runs.command()
@click.argument("run_id", metavar="ID")
@json_option
@click.pass_obj
def show(api: Callable[[], _Api], run_id: str, as_json: bool) -> None:
    """Show one run as it stands, with its result; to the owner with its attempts and log."""
    made = api()
    run, detail = made.ask("GET", _path(run_id)), made.detail(run_id)
    if as_json:
        print_json(run if detail is None else {**run, "detail": detail})
        return
    for name, value in run.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        click.echo(f"{name:<12} {'' if value is None else printable(text)}".rstrip())
    if detail is not None:
        for line in detail_lines(detail, terminal_width()):
            click.echo(line.rstrip())


@runs.command()
@click.option("--hours", type=click.IntRange(1, 720), default=24, show_default=True)
@click.option("--action", help="Only those of this action.")
@json_option
@click.pass_obj
def errors(api: Callable[[], _Api], hours: int, action: str | None, as_json: bool) -> None:
    """Show what fails: the failed runs of the last hours, by action and exception."""
    params = {"hours": str(hours), **({"action": action} if action else {})}
    found = api().ask("GET", "/api/runs/errors", **params)
    if as_json:
        print_json(found)
        return
    if not found["errors"]:
        click.echo(f"No run has failed in the last {hours} h.")
        return
    print_rows(ERRORS, [_error_cells(row) for row in found["errors"]])
    if not found["complete"]:
        click.echo("There are more: take fewer hours, or one action.")


@runs.command()
@click.argument("action")
@click.argument("params", default="{}", metavar="['{json}']")
@click.option("--async", "respond_async", is_flag=True, help="Do not wait for the result.")
@click.pass_obj
def start(api: Callable[[], _Api], action: str, params: str, respond_async: bool) -> None:
    """Start an internal ACTION, which no client can call; exit code 1 on a failure."""
    body, made = json_of(params, "params"), api()
    path = f"/api/internal/{quote(action, safe='')}"
    reply = made.client.request("POST", path, json=body)
    envelope = reply.envelope
    if reply.run_id and not respond_async:
        envelope = followed(made.client, reply.run_id, made.flags)
    print_result(envelope)


@runs.command()
@click.argument("run_id", metavar="ID")
@click.pass_obj
def follow(api: Callable[[], _Api], run_id: str) -> None:
    """Show a run's progress until it has ended, then its result; exit code 1 on a failure."""
    made = api()
    print_result(followed(made.client, run_id, made.flags))


@runs.command()
@click.argument("run_id", metavar="[ID]", required=False)
@bulk_options
@json_option
@click.pass_obj
def cancel(api: Callable[[], _Api], /, run_id: str | None, as_json: bool, **chosen: Any) -> None:
    """Cancel a run, or all that the options find: a queued one never starts, a running one is
    stopped."""
    made = api()
    if not _done_to_all(made, "cancel", run_id, chosen, as_json):
        made.ask("POST", f"{_path(run_id)}/cancel")
        _print_state(made.ask("GET", _path(run_id), wait=str(STOP_SECONDS)), as_json)


@runs.command()
@click.argument("run_id", metavar="ID")
@click.argument("name")
@click.argument("data", default="true", metavar="['{json}']")
@json_option
@click.pass_obj
def signal(api: Callable[[], _Api], run_id: str, name: str, data: str, as_json: bool) -> None:
    """Send a run the signal NAME that it waits for, or will wait for; without JSON it is true."""
    accepted = api().client.signal(run_id, name, json_of(data, "data"))
    if as_json:
        print_json({"accepted": accepted})
    else:
        click.echo(f"{run_id} {name}: {'sent' if accepted else TOO_LATE}")


@runs.command()
@click.argument("run_id", metavar="[ID]", required=False)
@bulk_options
@json_option
@click.pass_obj
def retry(api: Callable[[], _Api], /, run_id: str | None, as_json: bool, **chosen: Any) -> None:
    """Start a run that ended `Worker lost` again under its id, or all that the options find."""
    made = api()
    if not _done_to_all(made, "retry", run_id, chosen, as_json):
        _print_state(made.ask("POST", f"{_path(run_id)}/retry"), as_json)


@runs.command()
@click.argument("run_id", metavar="[ID]", required=False)
@click.option("--params", metavar="'{json}'", help="Instead of those of the old run.")
@bulk_options
@json_option
@click.pass_obj
def replay(
    api: Callable[[], _Api],
    /,
    run_id: str | None,
    params: str | None,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Start a new run of the same call, as its caller; or of all that the options find."""
    body, made = {} if params is None else {"params": json_of(params, "params")}, api()
    if params is not None and run_id is None:
        raise click.UsageError("--params is for one run: give its ID.")
    if not _done_to_all(made, "replay", run_id, chosen, as_json):
        answer = made.ask("POST", f"{_path(run_id)}/replay", body=body)
        if as_json:
            print_json(answer)
        else:
            click.echo(f"{answer['runId']}: {answer['status']}")


def _done_to_all(
    api: _Api, do: str, run_id: str | None, chosen: dict[str, Any], as_json: bool
) -> bool:
    """Whether the command was for many runs; then it is done."""
    request = bulk_request(do, run_id, chosen)
    if request is None:
        return False
    answer = api.ask("POST", "/api/runs/bulk", body=request)
    print_json(answer) if as_json else print_done(request, answer)
    return True


def _path(run_id: str | None) -> str:
    return f"/api/runs/{quote(run_id or '', safe='')}"


def _print_state(run: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(run)
    else:
        click.echo(f"{run['runId']} {run['action']}: {run['status']}")


def _api(*, subject: str | None, url: str | None, token: str | None, data_dir: Path) -> _Api:
    running = adopt_running_stack(data_dir)
    flags = caller_flags(subject=subject, url=url, token=token, data_dir=data_dir)
    subject = subject or os.environ.get("OWNER_USER_ID")
    if not token and not subject:
        raise ConfigurationError(
            "There is no owner: start `callboard up`, set OWNER_USER_ID, or give --as or --token."
        )
    client = Client(
        url or (running.url if running else DEFAULT_URL),
        token or signed_token(data_dir, str(subject)),
    )
    return _Api(client=client, flags=flags)


def _error_cells(row: dict[str, Any]) -> list[object]:
    cells = (row["runId"], row["count"], row["action"], row["exception"], row["error"])
    return [*cells, age(row["last"])]


def _cells(row: dict[str, Any]) -> list[object]:
    return [
        *(row[name] for name in ("runId", "action", "status")),
        age(row["enqueuedAt"]),
        row["createdBy"] or "anonymous",
        row["error"],
    ]
