"""Hands: which run each child of this worker executes, in memory that they share.

A child takes runs on its own (`worker.turn`), many in a row, so Celery's main process is not told
of each. It need not be: the keeper looks here, and a short run that it never sees needs no keeping.
Memory shared through `fork` costs a child two writes a run and goes on while the broker is away.

Each child has a row of its own, which the main process picks before it forks: a row is free once
its process is gone, so what a dead child had in hand stays readable until somebody has asked.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from collections.abc import Iterator, Sequence
from itertools import count
from typing import NamedTuple

__all__ = ["Hands", "InHand"]

ROWS = 1024  # children at one time, and dead ones that nobody has asked about
ROW_BYTES = 128

# What the child writes: process id, number, start (time.monotonic seconds), action, run id;
# behind that the keeper writes the number that is to stop.
_TAKEN = struct.Struct("<QQdH36s")
_ROW = struct.Struct(f"{_TAKEN.format}{ROW_BYTES - _TAKEN.size}x")
_STOP = struct.Struct("<Q")
_STOP_AT = ROW_BYTES - _STOP.size


class InHand(NamedTuple):
    """A run that a child executes."""

    pid: int
    number: int  # of the child's runs, from 1: a run that it gets twice is another one
    since: float  # time.monotonic seconds, before the claim
    action: str
    run_id: str


class Hands:
    """The table, made by the main process before it forks."""

    def __init__(self, actions: Sequence[str]) -> None:
        self._actions = list(actions)
        self._numbers = {name: number for number, name in enumerate(self._actions)}
        self._memory = mmap.mmap(-1, (ROWS + 1) * ROW_BYTES)  # the last row: `close`
        self._next = 0  # the row of the next child
        self._mine = 0  # this child's row
        self._number = 0

    # In the main process

    def pick_row(self) -> None:
        """Choose the row of a child that is about to be forked (`os.register_at_fork`)."""
        pids = [row[0] for row in _ROW.iter_unpack(self._memory[: ROWS * ROW_BYTES])]
        in_turn = ((self._next + step) % ROWS for step in range(1, ROWS + 1))
        self._next = next((row for row in in_turn if not _is_alive(pids[row])), self._next)

    def close(self) -> None:
        """Have the children take no further run."""
        self._memory[ROWS * ROW_BYTES] = 1

    def all(self) -> list[InHand]:
        """What the living children have in hand."""
        return [taken for _, taken in self._rows() if _is_alive(taken.pid)]

    def of(self, pid: int) -> InHand | None:
        """What this child, dead or alive, has in hand."""
        return next((taken for _, taken in self._rows() if taken.pid == pid), None)

    def ask_to_stop(self, wanted: InHand) -> None:
        """Mark the run for `stop_is_asked`; the child is then to be told by a signal."""
        for start, taken in self._rows():
            if taken == wanted:
                _STOP.pack_into(self._memory, start + _STOP_AT, taken.number)

    def _rows(self) -> Iterator[tuple[int, InHand]]:
        """Where it stands, and what is in hand. A row that changed meanwhile is left out: a run
        that has just begun, or just ended."""
        before, after = (self._memory[: ROWS * ROW_BYTES] for _ in range(2))
        for start, row in zip(count(0, ROW_BYTES), _ROW.iter_unpack(before), strict=False):
            pid, number, since, action, run_id = row
            if number and before[start : start + _TAKEN.size] == after[start : start + _TAKEN.size]:
                yield start, InHand(pid, number, since, self._actions[action], run_id.decode())

    # In a child

    def begin(self) -> None:
        """This child is there, with nothing in hand."""
        self._mine = self._next
        self._number = 0
        _STOP.pack_into(self._memory, self._mine * ROW_BYTES + _STOP_AT, 0)
        self.let_go()

    def take(self, run_id: str, action: str) -> None:
        """The run is in hand."""
        self._number += 1
        self._write(self._number, time.monotonic(), self._numbers[action], run_id.encode())

    def let_go(self) -> None:
        """The run has ended, or is another's."""
        self._write(0, 0.0, 0, b"")

    def mine(self) -> InHand | None:
        """The run that this process has in hand; none outside a child."""
        pid, number, since, action, run_id = _ROW.unpack_from(self._memory, self._mine * ROW_BYTES)
        if not number or pid != os.getpid():
            return None
        return InHand(pid, number, since, self._actions[action], run_id.decode())

    def stop_is_asked(self) -> bool:
        """Whether the keeper wants the run in hand to stop."""
        asked = _STOP.unpack_from(self._memory, self._mine * ROW_BYTES + _STOP_AT)[0]
        return bool(asked == self._number)

    @property
    def closed(self) -> bool:
        """Whether no further run is to be taken."""
        return bool(self._memory[ROWS * ROW_BYTES])

    def _write(self, number: int, since: float, action: int, run_id: bytes) -> None:
        start = self._mine * ROW_BYTES
        _TAKEN.pack_into(self._memory, start, os.getpid(), number, since, action, run_id)


def _is_alive(pid: int) -> bool:
    """Whether there is such a process; 0 is none."""
    if not pid:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
