"""What `callboard up` prints when all is ready."""

from __future__ import annotations

from collections.abc import Sequence

from callboard.preflight import DeclaredAction
from callboard.stack.programs import Application
from callboard.stack.tokens import mint_token

__all__ = ["banner"]

SUBJECT = "alice"
FIRST_CHOICE = "ensureUserRow"  # the example that succeeds for every caller


def banner(application: Application, actions: Sequence[DeclaredAction]) -> str:
    """The URLs, a development token and a call to paste.

    Without JWT_SECRET (the application verifies tokens of an identity provider) nobody here can
    sign one: the call then reads it from CALLBOARD_TOKEN.
    """
    jwt_secret = application.environment.get("JWT_SECRET")
    token = mint_token(SUBJECT, jwt_secret) if jwt_secret else None
    name = example(actions)
    bearer = token or "$CALLBOARD_TOKEN"
    lines = [
        "",
        "Callboard is ready.",
        "",
        f"  API     {application.url}",
        f"  Flower  {application.flower_url}",
        f"  Logs    {application.folder.path / 'log'}",
        "",
        f"  A token for {SUBJECT}, valid for 12 hours:" if token else "  Bring a token of yours:",
        "",
        f"{token}" if token else "export CALLBOARD_TOKEN=...",
        "",
        f"  A call, in another terminal (or: callboard call {name}):",
        "",
        f"curl -sS -X POST {application.url}/api/actions/{name} "
        f"-H 'Content-Type: application/json' -H \"Authorization: Bearer {bearer}\" -d '{{}}'",
        "",
        "  Ctrl-C stops everything.",
        "",
    ]
    return "\n".join(lines)


def example(actions: Sequence[DeclaredAction]) -> str:
    """The action to show: `ensureUserRow`, else one that anybody can call with {}."""
    names = [action.name for action in actions]
    if FIRST_CHOICE in names:
        return FIRST_CHOICE
    return next((action.name for action in actions if action.open_to_all), names[0])
