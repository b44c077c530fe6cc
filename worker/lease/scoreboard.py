"""Scoreboard: which run each child of this worker executes (`worker.lease.table`).

A child takes runs on its own (`worker.runs.consuming`), many one after the other. Each child has a
row of its own, which the main process picks before it forks: a row is free once its process is
gone, so what a dead child had in hand stays readable until the keeper has read it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from .table import ActiveRun, Table, is_alive

__all__ = ["Scoreboard"]

ROWS = 1024  # children at one time, and dead ones that the keeper has not read yet


class Scoreboard:
    """Those of the children, made by the main process before it forks."""

    def __init__(self, actions: Sequence[str]) -> None:
        self._table = Table(actions, ROWS)
        self._next = 0  # the row of the next child
        self._used = 1  # rows that a child has, or had
        self._mine = 0  # this child's row
        self._number = 0

    # In the main process

    def pick_row(self) -> None:
        """Choose the row of a child that is about to be forked (`os.register_at_fork`)."""
        pids = self._table.pids()
        candidates = ((self._next + step) % ROWS for step in range(1, ROWS + 1))
        self._next = next((row for row in candidates if not is_alive(pids[row])), self._next)
        self._used = max(self._used, self._next + 1)

    def close(self) -> None:
        """Have the worker's processes take no further run."""
        self._table.flag = 1

    def all(self) -> list[ActiveRun]:
        """What the living children have in hand."""
        return [taken for taken in self._taken() if is_alive(taken.pid)]

    def of(self, pid: int) -> ActiveRun | None:
        """What this child, dead or alive, has in hand."""
        return next((taken for taken in self._taken() if taken.pid == pid), None)

    def forget(self, pid: int) -> None:
        """This child is dead, and the keeper has read what it had."""
        if taken := self.of(pid):
            self._table.empty(taken.row)

    def spent(self, taken: ActiveRun) -> float:
        """Seconds of the run's time that were over before it was taken."""
        return self._table.spent(taken.row)

    def has(self, wanted: ActiveRun) -> bool:
        """Whether the run is in hand."""
        return self._table.has(wanted)

    def request_stop(self, wanted: ActiveRun) -> None:
        """Mark the run for `stop_is_requested`; the child is then to be told by a signal."""
        self._table.request_stop(wanted)

    def _taken(self) -> Iterator[ActiveRun]:
        return filter(None, map(self._table.read, range(self._used)))

    # In a child

    def begin(self) -> None:
        """This child is there, with nothing in hand."""
        self._mine = self._next
        self._number = 0
        self._table.forget_stop(self._mine)
        self.let_go()

    def take(self, run_id: str, action: str) -> int:
        """The run is in hand; its number."""
        self._number += 1
        self._table.write(self._mine, self._number, run_id, action)
        return self._number

    def note_spent(self, seconds: float) -> None:
        """So much of the time that the run in hand has was over before it was taken."""
        self._table.note_spent(self._mine, seconds)

    def let_go(self) -> None:
        """The run has ended, or is another's."""
        self._table.clear(self._mine)

    def mine(self) -> ActiveRun | None:
        """The run that this process has in hand; none outside a child."""
        taken = self._table.read(self._mine)
        return taken if taken and taken.pid == os.getpid() else None

    def stop_is_requested(self) -> bool:
        """Whether the keeper wants the run in hand to stop."""
        return self._table.stop_requested(self._mine) == self._number

    @property
    def closed(self) -> bool:
        """Whether no further run is to be taken."""
        return bool(self._table.flag)
