"""A real `callboard up` as these tests run it: `LiveStack`, and its processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from callboard.testing.live import LiveStack

ROOT = Path(__file__).parents[2]
STOP = 10.0  # seconds: what Ctrl-C promises


class Stack(LiveStack):
    """A `callboard up` that was started."""

    def descendants(self) -> dict[int, str]:
        """Every process below it: id -> command line (Linux)."""
        return dict(_below(self.process.pid))


def _below(parent: int) -> Iterator[tuple[int, str]]:
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    for child in map(int, children):
        command = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        yield child, command
        yield from _below(child)


def started(
    folder: Path, *flags: str, cwd: Path = ROOT, **variables: Any
) -> AbstractContextManager[Stack]:
    """Run `callboard up` on free ports with a data folder of its own; ended with the block."""
    return Stack.started(folder, *flags, cwd=cwd, **variables)
