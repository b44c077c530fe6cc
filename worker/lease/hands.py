"""Hands: which run each child of this worker executes (`worker.lease.table`).

A child takes runs on its own (`worker.runs.turn`), many in a row. Each has a row of its own, which
the main process picks before it forks: a row is free once its process is gone, so what a dead child
had in hand stays readable until somebody has asked.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from .table import InHand, Table, is_alive

__all__ = ["Hands"]

ROWS = 1024  # children at one time, and dead ones that nobody has asked about


class Hands:
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
        in_turn = ((self._next + step) % ROWS for step in range(1, ROWS + 1))
        self._next = next((row for row in in_turn if not is_alive(pids[row])), self._next)
        self._used = max(self._used, self._next + 1)

    def close(self) -> None:
        """Have the worker's processes take no further run."""
        self._table.flag = 1

    def all(self) -> list[InHand]:
        """What the living children have in hand."""
        return [taken for taken in self._taken() if is_alive(taken.pid)]

    def of(self, pid: int) -> InHand | None:
        """What this child, dead or alive, has in hand."""
        return next((taken for taken in self._taken() if taken.pid == pid), None)

    def forget(self, pid: int) -> None:
        """This child is dead, and somebody has asked."""
        if taken := self.of(pid):
            self._table.empty(taken.row)

    def spent(self, taken: InHand) -> float:
        """Seconds of the run's time that were over before it was taken."""
        return self._table.spent(taken.row)

    def has(self, wanted: InHand) -> bool:
        """Whether the run is in hand."""
        return self._table.has(wanted)

    def ask_to_stop(self, wanted: InHand) -> None:
        """Mark the run for `stop_is_asked`; the child is then to be told by a signal."""
        self._table.ask_to_stop(wanted)

    def _taken(self) -> Iterator[InHand]:
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

    def mine(self) -> InHand | None:
        """The run that this process has in hand; none outside a child."""
        taken = self._table.read(self._mine)
        return taken if taken and taken.pid == os.getpid() else None

    def stop_is_asked(self) -> bool:
        """Whether the keeper wants the run in hand to stop."""
        return self._table.asked(self._mine) == self._number

    @property
    def closed(self) -> bool:
        """Whether no further run is to be taken."""
        return bool(self._table.flag)
