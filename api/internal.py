"""``/api/internal``: actions that no client can call, listed and started by the owner alone."""

from __future__ import annotations

import inspect
from typing import Any

from flask import Blueprint, Response

from callboard.sdk.action import Action
from callboard.sdk.unknown import unknown_action

from .call.calls import identify, read_object, started
from .call.later import place_one, start_of
from .errors import envelope
from .services import current_services, this_request

__all__ = ["internal"]

internal = Blueprint("internal", __name__)


@internal.get("/api/internal")
def show_all() -> Response:
    """Each internal action, with its description and the schema of its params."""
    current_services().require_owner(identify())
    rows = [_shown(action) for _, action in sorted(_actions().items())]
    return envelope({"success": True, "data": {"actions": rows}}, 200)


@internal.post("/api/internal/<name>")
def start(name: str) -> Response:
    """Start a run of it as the owner: 202. The body: its params."""
    services, identity = current_services(), identify()
    services.require_owner(identity)
    action = _actions().get(name)
    if action is None:
        raise unknown_action(name, _actions())
    params = read_object(this_request())
    services.limit_rate(identity, "calls")
    action.validate(params)
    accepted = place_one(services, start_of(action, identity, params, 0.0, None))
    return started(services, accepted.run_id)


def _actions() -> dict[str, Action]:
    known = current_services().registry.actions
    return {name: action for name, action in known.items() if action.internal}


def _shown(action: Action) -> dict[str, Any]:
    schema = action.params.schema if action.params else None
    return {
        "name": action.name,
        "description": inspect.getdoc(action.handler) or "",
        "params": schema or {"type": "object"},
    }
