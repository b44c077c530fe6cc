"""Slots: which runs one loop process executes, many at once (`worker.lease.table`).

Its main process makes them before it forks the process. What a dead process had in its slots
stays readable until they are cleared for the next one.
"""

from __future__ import annotations

from collections.abc import Sequence

from .table import ActiveRun, Table, is_alive

__all__ = ["Slots"]


class Slots:
    """Those of one loop process. ``size``: the runs that it has at once."""

    def __init__(self, actions: Sequence[str], size: int) -> None:
        self._table = Table(actions, size)
        self._free = list(reversed(range(size)))  # low ones are taken first
        self._rows: dict[int, int] = {}  # number -> row
        self._number = 0
        self.pid = 0  # of the process that has them; 0 while there is none

    # In the main process

    def all(self) -> list[ActiveRun]:
        """What the process has in hand, if it lives."""
        return self.left() if is_alive(self.pid) else []

    def left(self) -> list[ActiveRun]:
        """What the process has in hand, dead or alive."""
        used = range(self._table.flag)
        return list(filter(None, map(self._table.read, used)))

    def has(self, wanted: ActiveRun) -> bool:
        """Whether the run is in hand."""
        return self._table.has(wanted)

    def request_stop(self, wanted: ActiveRun) -> None:
        """Mark the run for `to_stop`; the process is then to be told by a signal."""
        self._table.request_stop(wanted)

    def clear(self) -> None:
        """For the next process."""
        for row in range(self._table.flag):
            self._table.clear(row)
            self._table.forget_stop(row)
        self._table.flag = 0
        self.pid = 0

    # In the loop process

    @property
    def free(self) -> int:
        """How many more runs there is room for."""
        return len(self._free)

    def take(self, run_id: str, action: str) -> int:
        """The run is in hand; its number. There must be a free slot."""
        self._number += 1
        row = self._rows[self._number] = self._free.pop()
        self._table.flag = max(self._table.flag, row + 1)  # how many were ever used
        self._table.write(row, self._number, run_id, action)
        return self._number

    def let_go(self, number: int) -> None:
        """The run has ended, or is another's."""
        row = self._rows.pop(number)
        self._table.clear(row)
        self._free.append(row)

    def to_stop(self) -> list[int]:
        """The numbers of the runs that the keeper wants to stop."""
        return [
            number
            for number, row in self._rows.items()
            if self._table.stop_requested(row) == number
        ]
