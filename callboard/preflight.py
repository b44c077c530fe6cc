"""The check before a start: are the settings and the actions package right?

    python -m callboard.preflight

prints one clear message and exits 1, or a line with what the package declares. Whatever the
package's modules print themselves is not looked at.
It is a process of its own because an imported module stays imported: a parent that had looked
by itself would hand old code to the children that it forks after a change.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from callboard.errors import CallboardError, ConfigurationError

__all__ = ["Declared", "DeclaredAction", "preflight"]

TIMEOUT = 60.0  # seconds for the imports
LOOK_SECONDS = 0.25  # between two looks whether to give up
ANSWER = "declared: "  # what the answer begins with


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredAction:
    """What a start needs to know of an action."""

    name: str
    example: dict[str, Any] | None  # params with which any caller can call it, if one was found
    internal: bool = False  # no client can


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """What the actions package declares."""

    actions: tuple[DeclaredAction, ...]
    queues: tuple[str, ...]
    message_queues: tuple[str, ...]  # of their wake-ups: async actions have their own
    folder: str  # of the package; the file of a plain module
    imported: tuple[str, ...]  # the source files below the working directory that it took
    pages: tuple[str, ...]  # what the API serves to people: "console", "docs"


def preflight(
    environment: Mapping[str, str], give_up: Callable[[], str | None] = lambda: None
) -> Declared:
    """Check in a new process; raises `ConfigurationError` with every mistake found.

    ``give_up``: asked meanwhile, says why nobody wants to know any more.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", __name__],
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    with process:
        try:
            stdout, stderr = _output(process, give_up)
        finally:
            process.kill()
    answers = [line for line in stdout.splitlines() if line.startswith(ANSWER)]
    if process.returncode or not answers:
        reason = stderr.strip() or f"The check of the actions ended with {process.returncode}."
        raise ConfigurationError(reason)
    read = json.loads(answers[-1].removeprefix(ANSWER))
    return Declared(
        actions=tuple(DeclaredAction(**row) for row in read["actions"]),
        queues=tuple(read["queues"]),
        message_queues=tuple(read["message_queues"]),
        folder=read["folder"],
        imported=tuple(read["imported"]),
        pages=tuple(read["pages"]),
    )


def _output(process: subprocess.Popen[str], give_up: Callable[[], str | None]) -> tuple[str, str]:
    """What it wrote, once it has ended."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            return process.communicate(timeout=LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            if why := give_up():
                raise ConfigurationError(why) from None
            if time.monotonic() > deadline:
                raise ConfigurationError(
                    f"Importing the actions took more than {TIMEOUT:g} s. A module of theirs "
                    f"waits for something: whatever a handler needs belongs into the handler."
                ) from None


def _declared() -> Declared:
    from callboard.registry import get_registry
    from callboard.sdk.example import example_params
    from callboard.settings import get_settings

    settings, registry = get_settings(), get_registry()
    module = sys.modules[settings.actions]
    paths = getattr(module, "__path__", None)
    return Declared(
        actions=tuple(
            DeclaredAction(
                name=name,
                example=None if action.owner_only else example_params(action),
                internal=action.internal,
            )
            for name, action in sorted(registry.actions.items())
        ),
        queues=registry.queues,
        message_queues=registry.message_queues,
        folder=str(Path(next(iter(paths)) if paths else module.__file__ or ".").absolute()),
        imported=tuple(_of_the_project()),
        pages=("console",) * settings.serves("console") + ("docs",) * settings.serves("docs"),
    )


def _of_the_project() -> Iterator[str]:
    """The source files of imported modules below the working directory.

    An environment that lies there (``.venv/``) is not part of the project.
    """
    here, environment = Path.cwd(), Path(sys.prefix)
    for module in list(sys.modules.values()):
        file = Path(getattr(module, "__file__", None) or "/")
        ours = file.is_relative_to(here) and not file.is_relative_to(environment)
        if ours and file.suffix == ".py":
            yield str(file)


def _main() -> None:
    try:
        declared = _declared()
    except CallboardError as error:
        sys.exit(str(error))
    sys.stdout.write(f"\n{ANSWER}{json.dumps(asdict(declared))}\n")
    sys.stdout.flush()
    os._exit(0)  # whatever threads the modules have started


if __name__ == "__main__":
    _main()
