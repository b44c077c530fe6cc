"""What `callboard up` prints when all is ready."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from callboard.preflight import Declared, DeclaredAction
from callboard.stack.folder import DEFAULT_FOLDER
from callboard.stack.programs import Application
from callboard.stack.tokens import mint_token

__all__ = ["banner"]

SUBJECT = "alice"
FIRST_CHOICE = "ensureUserRow"  # the example that succeeds for every caller


def banner(application: Application, declared: Declared, notes: Sequence[str] = ()) -> str:
    """The addresses, a link that signs the owner in to the console, and calls to paste.

    Without JWT_SECRET (the application verifies tokens of an identity provider) nobody here can
    sign a token: the calls then take it from CALLBOARD_TOKEN. ``notes``: more lines on what runs.
    """
    return "\n".join(
        [
            "",
            "Callboard is ready.",
            "",
            *_pages(application, declared),
            f"  API      {application.url}",
            f"  Flower   {application.flower_url}",
            f"  Logs     {application.folder.path / 'log'}",
            *(f"  {note}" for note in notes),
            "",
            *_calls(application, declared),
            "  Ctrl-C stops everything.",
            "",
        ]
    )


def _calls(application: Application, declared: Declared) -> Iterator[str]:
    """A call to paste, on the command line and over HTTP; nothing where no client can call."""
    shown = example(declared.actions)
    if shown is None:
        return
    name, params = shown
    signs = "JWT_SECRET" in application.environment
    body, command = shlex.quote(json.dumps(params)), _command()
    arguments = f"{name} {body}" if params else name
    folder = _flag(application)
    bearer = f"$({command} token {SUBJECT}{folder})" if signs else "$CALLBOARD_TOKEN"
    yield "  A call, in another terminal:" if signs else "  A call with a token of yours:"
    yield ""
    if not signs:
        yield "export CALLBOARD_TOKEN=..."
    yield f"{command} call {arguments}{folder}"
    yield from ("", "  The same over HTTP:", "")
    yield (
        f"curl -sS -X POST {application.url}/api/actions/{name} "
        f"-H 'Content-Type: application/json' -H \"Authorization: Bearer {bearer}\" -d {body}"
    )
    yield ""


def _pages(application: Application, declared: Declared) -> Iterator[str]:
    """The pages for people. A browser sends nothing that is behind a #: no log has the token."""
    if "console" in declared.pages:
        secret = application.environment.get("JWT_SECRET")
        owner = application.environment["OWNER_USER_ID"]
        token = f"#token={mint_token(owner, secret)}" if secret else ""
        note = f"  (signs in as {owner}, for 12 hours)" if secret else ""
        yield f"  Console  {application.url}/{token}{note}"
    if "docs" in declared.pages:
        yield f"  Docs     {application.url}/docs"


def _command() -> str:
    """How this command line was called, as a shell in the same folder understands it."""
    called = Path(sys.argv[0])
    if called.name != "callboard":
        return f"{shlex.quote(sys.executable)} -m callboard.cli"
    beside = os.path.relpath(called.absolute())
    return shlex.quote(beside if len(called.parts) > 1 and beside[:2] != ".." else str(called))


def _flag(application: Application) -> str:
    """The flag that names the data folder, where it is not the usual one."""
    folder = application.folder.path
    return "" if folder == DEFAULT_FOLDER.absolute() else f" --data-dir {shlex.quote(str(folder))}"


def example(actions: Sequence[DeclaredAction]) -> tuple[str, dict[str, Any]] | None:
    """The call to show: `ensureUserRow`, else one that anybody can make, with {} if possible.

    None where all are internal.
    """
    calls = {action.name: action.example for action in actions if not action.internal}
    wanted = [
        *(name for name in calls if name == FIRST_CHOICE),
        *(name for name, params in calls.items() if params == {}),
        *(name for name, params in calls.items() if params),
        *calls,
    ]
    return (wanted[0], calls[wanted[0]] or {}) if wanted else None
