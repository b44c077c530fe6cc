"""What a running `callboard up` tells the other commands: addresses and secrets, in a file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

from callboard.stack.folder import DataFolder

__all__ = ["Running", "announced", "read_running"]

_FILE = "running.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A running stack."""

    pid: int  # of its supervisor
    url: str  # of the API
    flower_url: str
    environment: Mapping[str, str] = field(repr=False)  # what its processes were given


@contextmanager
def announced(folder: DataFolder, running: Running) -> Iterator[None]:
    """Keep the file as long as the stack runs."""
    path = folder.write(_FILE, json.dumps(asdict(running), indent=2))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def read_running(folder: DataFolder) -> Running | None:
    """The stack that runs on this folder; None where none does."""
    stored = folder.read_json(_FILE)
    if stored is None:
        return None
    running = Running(**stored)
    try:
        os.kill(running.pid, 0)
    except ProcessLookupError:  # it was killed, and could not take the file away
        return None
    except PermissionError:
        pass
    return running
