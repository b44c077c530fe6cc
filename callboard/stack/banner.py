"""What `callboard up` prints when all is ready."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import Any

from callboard.preflight import DeclaredAction
from callboard.stack.programs import Application
from callboard.stack.tokens import mint_token

__all__ = ["banner"]

SUBJECT = "alice"
FIRST_CHOICE = "ensureUserRow"  # the example that succeeds for every caller


def banner(
    application: Application, actions: Sequence[DeclaredAction], notes: Sequence[str] = ()
) -> str:
    """The URLs, a development token and a call to paste.

    Without JWT_SECRET (the application verifies tokens of an identity provider) nobody here can
    sign one: the call then reads it from CALLBOARD_TOKEN. ``notes``: more lines on what runs.
    """
    jwt_secret = application.environment.get("JWT_SECRET")
    token = mint_token(SUBJECT, jwt_secret) if jwt_secret else None
    name, params = example(actions)
    body = shlex.quote(json.dumps(params))
    arguments = f"{name} {body}" if params else name
    bearer = token or "$CALLBOARD_TOKEN"
    lines = [
        "",
        "Callboard is ready.",
        "",
        f"  API     {application.url}",
        f"  Flower  {application.flower_url}",
        f"  Logs    {application.folder.path / 'log'}",
        *(f"  {note}" for note in notes),
        "",
        f"  A token for {SUBJECT}, valid for 12 hours:" if token else "  Bring a token of yours:",
        "",
        f"{token}" if token else "export CALLBOARD_TOKEN=...",
        "",
        f"  A call, in another terminal (or: callboard call {arguments}):",
        "",
        f"curl -sS -X POST {application.url}/api/actions/{name} "
        f"-H 'Content-Type: application/json' -H \"Authorization: Bearer {bearer}\" -d {body}",
        "",
        "  Ctrl-C stops everything.",
        "",
    ]
    return "\n".join(lines)


def example(actions: Sequence[DeclaredAction]) -> tuple[str, dict[str, Any]]:
    """The call to show: `ensureUserRow`, else one that anybody can make, with {} if possible."""
    calls = {action.name: action.example for action in actions}
    wanted = [
        *(name for name in calls if name == FIRST_CHOICE),
        *(name for name, params in calls.items() if params == {}),
        *(name for name, params in calls.items() if params),
        *calls,
    ]
    return wanted[0], calls[wanted[0]] or {}
