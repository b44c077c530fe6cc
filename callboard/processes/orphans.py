"""Orphans: processes whose parent has ended, adopted, found and ended (Linux).

The kernel gives an orphan to the next process above it that has asked for that, else to the first
process of the machine. Elsewhere nothing is adopted, and nothing found.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Collection, Iterator
from pathlib import Path

__all__ = ["adopt_orphans", "below", "children", "end", "orphans_ended"]

SECONDS = 1.0  # that killed processes have to be gone

_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Be the parent of what is orphaned below this process from now on."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1)


@contextlib.contextmanager
def orphans_ended() -> Iterator[None]:
    """Adopt what is orphaned below this process, and end all that is below it after the block."""
    adopt_orphans()
    try:
        yield
    finally:
        deadline = time.monotonic() + SECONDS
        while (found := below(os.getpid())) and time.monotonic() < deadline:
            end(found, deadline)


def end(pids: Collection[int], deadline: float) -> None:
    """Kill them; take away what is left of those that are children of this process.

    `multiprocessing` comes first: it would take a process whose exit code it does not get for a
    living one. ``deadline``: `time.monotonic` seconds, until which they are waited for.
    """
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    while any(_is_running(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.001)
    multiprocessing.active_children()
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def below(process: int) -> list[int]:
    """The process ids of its children, their children, and so on."""
    found = []
    for child in children(process):
        found += [child, *below(child)]
    return found


def children(process: int, thread: int | None = None) -> list[int]:
    """The process ids of its children; [] if unknown.

    ``thread``: only those of this one. What a process adopts belongs to its first thread, whose id
    is that of the process.
    """
    found: list[int] = []
    with contextlib.suppress(OSError):
        tasks = Path(f"/proc/{process}/task")
        for task in tasks.iterdir() if thread is None else (tasks / str(thread),):
            with contextlib.suppress(OSError):  # a thread that has just ended
                found += map(int, (task / "children").read_bytes().split())
    return found


def _is_running(child: int) -> bool:
    """Whether it is a child of this process, and has not ended."""
    try:
        return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False
