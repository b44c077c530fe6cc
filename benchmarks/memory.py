"""Memory of processes, read from Linux's /proc."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from benchmarks.cpu import sessions
from callboard.stack.process import Process

__all__ = ["Peak", "pss_mib"]


class Peak:
    """The most that some processes were seen to take; a look costs milliseconds."""

    EVERY = 1.0  # seconds between two looks

    def __init__(self, processes: Iterable[Process]) -> None:
        self._processes = tuple(processes)
        self._next = time.monotonic() + self.EVERY
        self.mib = 0.0  # PSS; 0 where nobody looked

    def look(self) -> None:
        """Look, if it is time."""
        if time.monotonic() >= self._next:
            self.mib = max(self.mib, pss_mib(self._processes))
            self._next = time.monotonic() + self.EVERY


def pss_mib(processes: Iterable[Process]) -> float:
    """The proportional set size of these processes and all that they started, in MiB.

    A page that n processes share counts 1/n for each (proc(5), smaps_rollup). Each `Process` leads
    a session of its own. 0 where there is no /proc.
    """
    leaders = {process.pid for process in processes}
    return sum(_pss(pid) for pid, session in sessions() if session in leaders) / 1024


def _pss(pid: int) -> int:
    """In KiB; 0 for a process that has ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0
