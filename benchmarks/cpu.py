"""CPU time of processes, read from Linux's /proc."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from callboard.stack.process import Process

__all__ = ["cpu_seconds", "per_call", "sessions"]

TICKS = os.sysconf("SC_CLK_TCK")


class _Stat(NamedTuple):
    pid: int
    session: int
    own: float  # seconds, user and system
    reaped: float  # seconds of its children that have ended


def cpu_seconds(processes: Iterable[Process]) -> dict[str, float]:
    """CPU seconds until now by process group; ``NAME children`` for all but the group's first.

    Each `Process` leads a session of its own. Empty where there is no /proc.
    """
    names = {process.pid: process.name for process in processes}
    spent: defaultdict[str, float] = defaultdict(float)
    for stat in _stats():
        name = names.get(stat.session)
        if name is None:
            continue
        if stat.pid == stat.session:
            spent[name] += stat.own
            spent[f"{name} children"] += stat.reaped
        else:
            spent[f"{name} children"] += stat.own + stat.reaped
    return dict(spent)


def per_call(
    before: Mapping[str, float], after: Mapping[str, float], calls: int
) -> dict[str, float]:
    """CPU milliseconds per call by process group, without those that did nothing."""
    spent = {name: 1000 * (after[name] - before.get(name, 0.0)) / calls for name in after}
    return {name: cost for name, cost in sorted(spent.items()) if cost >= 0.005}


def sessions() -> Iterator[tuple[int, int]]:
    """Process id and session of every process."""
    return ((stat.pid, stat.session) for stat in _stats())


def _stats() -> Iterator[_Stat]:
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = file.read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended
        # proc(5): the fields after the command's name, which may hold anything
        fields = text.rpartition(")")[2].split()
        user, system, child_user, child_system = map(int, fields[11:15])
        yield _Stat(
            pid=int(file.parent.name),
            session=int(fields[3]),
            own=(user + system) / TICKS,
            reaped=(child_user + child_system) / TICKS,
        )
