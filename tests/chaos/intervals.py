"""Intervals: when which process executed which run, as the processes themselves saw it.

A handler appends a line when it starts, now and then, and when it ends, to a file of its
process. `time.monotonic` is one clock for all processes of a machine. A process that was killed
leaves an interval open: it ends with its last line, or with the kill if the suite did it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from pathlib import Path

__all__ = ["FOLDER_VARIABLE", "Interval", "executing", "overlapping", "read_intervals"]

FOLDER_VARIABLE = "CHAOS_INTERVALS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """One execution of a handler. Times are `time.monotonic` seconds."""

    run_id: str
    pid: int
    start: float
    end: float
    killed: bool = False  # the suite killed the process meanwhile, at `end`


@contextmanager
def executing(run_id: str) -> Iterator[Callable[[], None]]:
    """Write down that this process executes the run; call what it yields to confirm it."""
    file = _file(os.getpid())

    def note(event: str) -> None:
        os.write(file, f"{run_id} {event} {time.monotonic():.6f}\n".encode())

    note("start")
    try:
        yield lambda: note("on")
    finally:
        note("end")


@cache
def _file(pid: int) -> int:
    """The file of this process; a number may be another process's later, so the time is added."""
    path = Path(os.environ[FOLDER_VARIABLE]) / f"{pid}-{time.monotonic_ns()}"
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def read_intervals(folder: Path, kills: Mapping[int, float]) -> list[Interval]:
    """All intervals; ``kills``: when the suite killed a process, by process id."""
    found: list[Interval] = []
    for path in folder.iterdir():
        pid = int(path.name.partition("-")[0])
        found += _of_process(pid, path.read_text(), kills.get(pid))
    return sorted(found, key=lambda interval: interval.start)


def _of_process(pid: int, text: str, killed_at: float | None) -> Iterator[Interval]:
    run_id, start, seen = "", 0.0, 0.0
    for line in text.splitlines():
        told, event, at = line.split()
        if event == "start":
            run_id, start = told, float(at)
        seen = float(at)
        if event == "end":
            yield Interval(run_id=run_id, pid=pid, start=start, end=seen)
            run_id = ""
    if run_id:
        end = seen if killed_at is None else max(seen, killed_at)
        yield Interval(run_id=run_id, pid=pid, start=start, end=end, killed=killed_at is not None)


def overlapping(intervals: list[Interval]) -> list[tuple[Interval, Interval]]:
    """Pairs of one run's intervals in different processes that share a moment."""
    by_run: dict[str, list[Interval]] = {}
    for interval in intervals:
        by_run.setdefault(interval.run_id, []).append(interval)
    return [
        (one, other)
        for of_run in by_run.values()
        for one, other in combinations(of_run, 2)
        if one.pid != other.pid and one.start < other.end and other.start < one.end
    ]
