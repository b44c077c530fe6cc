"""`callboard actions`: what the actions package declares; needs no stack and no settings."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from callboard.cli.development import adopt_running_stack, data_dir_option
from callboard.cli.listing import json_option, print_json, print_rows

if TYPE_CHECKING:
    from callboard.sdk.action import Action

__all__ = ["actions"]

COLUMNS = ("Action", "Params", "Options")
DEFAULTS = {"timeout": 30.0, "queue": "callboard", "on_worker_lost": "rerun"}


@click.command()
@json_option
@data_dir_option
def actions(as_json: bool, data_dir: Path) -> None:
    """List the actions with their params (? marks what may be left out) and options."""
    from callboard.registry import discover_here

    adopt_running_stack(data_dir)
    registry = discover_here(os.environ.get("CALLBOARD_ACTIONS") or "actions")
    found = [action for _, action in sorted(registry.actions.items())]
    if as_json:
        print_json([_row(action) for action in found])
    else:
        print_rows(COLUMNS, [(one.name, _params(one), ", ".join(_options(one))) for one in found])


def _row(action: Action) -> dict[str, Any]:
    return {
        "name": action.name,
        "params": _schema(action),
        "ownerOnly": action.owner_only,
        "anonymous": action.anonymous,
        "internal": action.internal,
        "transaction": action.transaction,
        "timeout": action.timeout,
        "retry": repr(action.retry) if action.retry else None,
        "queue": action.queue,
        "async": action.is_async,
        "onWorkerLost": action.on_worker_lost,
        "where": action.where,
    }


def _schema(action: Action) -> Mapping[str, Any] | None:
    """The JSON schema of the params; None: any JSON object."""
    return None if action.params is None else action.params.schema


def _params(action: Action) -> str:
    if action.params is None:
        return "{}"
    schema = action.params.schema or {}
    required = schema.get("required", ())
    names = [name if name in required else f"{name}?" for name in schema.get("properties", {})]
    return ", ".join(names) or "{...}"


def _options(action: Action) -> Iterator[str]:
    """What is not as by default."""
    if action.is_async:
        yield "async"
    for name in ("owner_only", "anonymous", "internal", "transaction"):
        if getattr(action, name):
            yield name
    if action.retry:
        yield "retry"
    for name, usual in DEFAULTS.items():
        value = getattr(action, name)
        if value != usual:
            yield f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
