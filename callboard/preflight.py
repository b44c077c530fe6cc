"""The check before a start: are the settings and the actions package right?

    python -m callboard.preflight

prints one clear message and exits 1, or prints what the package declares as one line of JSON.
It is a process of its own because an imported module stays imported: a parent that had looked
by itself would hand old code to the children that it forks after a change.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from callboard.errors import CallboardError, ConfigurationError

__all__ = ["Declared", "DeclaredAction", "preflight"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredAction:
    """What a start needs to know of an action."""

    name: str
    example: dict[str, Any] | None  # params with which any caller can call it, if one was found


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """What the actions package declares."""

    actions: tuple[DeclaredAction, ...]
    queues: tuple[str, ...]
    folder: str  # of the package; the file of a plain module


def preflight(environment: Mapping[str, str]) -> Declared:
    """Check in a new process; raises `ConfigurationError` with every mistake found."""
    done = subprocess.run(
        [sys.executable, "-m", __name__],
        env=dict(environment),
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stdout.splitlines()  # the actions' modules may print, too: ours is the last
    if done.returncode or not lines:
        told = done.stderr.strip() or f"The check of the actions ended with {done.returncode}."
        raise ConfigurationError(told)
    read = json.loads(lines[-1])
    return Declared(
        actions=tuple(DeclaredAction(**row) for row in read["actions"]),
        queues=tuple(read["queues"]),
        folder=read["folder"],
    )


def _declared() -> Declared:
    from callboard.example import example_params
    from callboard.registry import get_registry
    from callboard.settings import get_settings

    registry = get_registry()
    module = sys.modules[get_settings().actions]
    paths = getattr(module, "__path__", None)
    return Declared(
        actions=tuple(
            DeclaredAction(name=name, example=None if action.owner_only else example_params(action))
            for name, action in sorted(registry.actions.items())
        ),
        queues=registry.queues,
        folder=str(Path(next(iter(paths)) if paths else module.__file__ or ".").absolute()),
    )


def _main() -> None:
    try:
        declared = _declared()
    except CallboardError as error:
        sys.exit(str(error))
    print(json.dumps(asdict(declared)))  # noqa: T201 - the answer


if __name__ == "__main__":
    _main()
