"""Intervals: when which process executed which run, as the processes themselves saw it.

A handler appends a line when it starts, now and then, and when it ends, to a file of its
process. `time.monotonic` is one clock for all processes of a machine. A process that was killed
leaves intervals open, of an event loop many: they end with their last line, or with the kill if the
suite did it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import combinations, count
from pathlib import Path

__all__ = [
    "FOLDER_VARIABLE", "Interval", "executing", "loop_pids", "overlapping", "read_intervals",
]  # fmt: skip

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
    file, number = _file(os.getpid()), next(_numbers)

    def note(event: str) -> None:
        os.write(file, f"{number} {run_id} {event} {time.monotonic():.6f}\n".encode())

    note("start")
    try:
        yield lambda: note("on")
    finally:
        note("end")


_numbers = count()  # of this process's executions: of one run there may be several


@cache
def _file(pid: int) -> int:
    """The file of this process; a number may be another process's later, so the time is added.

    The name tells whether the process has an event loop.
    """
    kind = "loop" if in_loop() else "child"
    path = Path(os.environ[FOLDER_VARIABLE]) / f"{pid}-{time.monotonic_ns()}-{kind}"
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def in_loop() -> bool:
    """Whether an event loop runs the caller."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def loop_pids(folder: Path) -> set[int]:
    """The processes that have run something on an event loop."""
    return {int(path.name.partition("-")[0]) for path in folder.glob("*-loop")}


def read_intervals(folder: Path, kills: Mapping[int, float]) -> list[Interval]:
    """All intervals; ``kills``: when the suite killed a process, by process id."""
    found: list[Interval] = []
    for path in folder.iterdir():
        pid = int(path.name.partition("-")[0])
        found += _of_process(pid, path.read_text(), kills.get(pid))
    return sorted(found, key=lambda interval: interval.start)


def _of_process(pid: int, text: str, killed_at: float | None) -> Iterator[Interval]:
    running: dict[str, tuple[str, float, float]] = {}  # number -> run id, start, last seen
    for line in text.splitlines():
        number, run_id, event, told = line.split()
        at = float(told)
        start = at if event == "start" else running.pop(number)[1]
        if event == "end":
            yield Interval(run_id=run_id, pid=pid, start=start, end=at)
        else:
            running[number] = run_id, start, at
    for run_id, start, seen in running.values():
        end = seen if killed_at is None else max(seen, killed_at)
        yield Interval(run_id=run_id, pid=pid, start=start, end=end, killed=killed_at is not None)


def overlapping(intervals: list[Interval]) -> list[tuple[Interval, Interval]]:
    """Pairs of one run's intervals that share a moment."""
    by_run: dict[str, list[Interval]] = {}
    for interval in intervals:
        by_run.setdefault(interval.run_id, []).append(interval)
    return [
        (one, other)
        for of_run in by_run.values()
        for one, other in combinations(of_run, 2)
        if one.start < other.end and other.start < one.end
    ]
