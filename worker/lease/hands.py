"""Hands: which run each child of this worker executes, in memory that they share.

A child takes runs on its own (`worker.runs.turn`), many in a row, so Celery's main process is not
told of each. It need not be: the keeper looks here, and a short run that it never sees needs no
keeping. Memory shared through `fork` costs a child two writes a run and goes on while the broker is
away.

Each child has a row of its own, which the main process picks before it forks: a row is free once
its process is gone, so what a dead child had in hand stays readable until somebody has asked.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

__all__ = ["Hands", "InHand"]

ROWS = 1024  # children at one time, and dead ones that nobody has asked about
ROW_WORDS = 16  # of eight bytes
ROW_BYTES = 8 * ROW_WORDS
TRIES = 3  # to read a row that is just being written

# A row's words. The child writes all but the last: the version is odd while it does.
_VERSION = 0
_PID = 1
_TAKEN = struct.Struct("@QQdQ36s")  # process id, number, start (time.monotonic), action, run id
_TAKEN_AT = 8 * _PID
_STOP = ROW_WORDS - 1  # the keeper writes here the number that is to stop


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
        self._words = memoryview(self._memory).cast("Q")
        self._next = 0  # the row of the next child
        self._used = 1  # rows that a child has, or had
        self._mine = 0  # this child's row
        self._number = 0

    # In the main process

    def pick_row(self) -> None:
        """Choose the row of a child that is about to be forked (`os.register_at_fork`)."""
        pids = self._words[_PID : ROWS * ROW_WORDS : ROW_WORDS].tolist()
        in_turn = ((self._next + step) % ROWS for step in range(1, ROWS + 1))
        self._next = next((row for row in in_turn if not _is_alive(pids[row])), self._next)
        self._used = max(self._used, self._next + 1)

    def close(self) -> None:
        """Have the children take no further run."""
        self._words[ROWS * ROW_WORDS] = 1

    def all(self) -> list[InHand]:
        """What the living children have in hand."""
        return [taken for _, taken in self._rows() if _is_alive(taken.pid)]

    def of(self, pid: int) -> InHand | None:
        """What this child, dead or alive, has in hand."""
        return next((taken for _, taken in self._rows() if taken.pid == pid), None)

    def ask_to_stop(self, wanted: InHand) -> None:
        """Mark the run for `stop_is_asked`; the child is then to be told by a signal."""
        for row, taken in self._rows():
            if taken == wanted:
                self._words[row * ROW_WORDS + _STOP] = taken.number

    def _rows(self) -> Iterator[tuple[int, InHand]]:
        """The rows with a run. One that changes meanwhile is left out: its run has just begun, or
        just ended."""
        for row in range(self._used):
            if taken := self._read(row):
                yield row, taken

    def _read(self, row: int) -> InHand | None:
        """What stands in the row; None for no run, and for a row that changes all the time."""
        version_at, start = row * ROW_WORDS + _VERSION, row * ROW_BYTES + _TAKEN_AT
        for _ in range(TRIES):
            version = self._words[version_at]
            content = self._memory[start : start + _TAKEN.size]
            if version % 2 == 0 and self._words[version_at] == version:
                return self._taken(content)
        return None

    def _taken(self, content: bytes) -> InHand | None:
        pid, number, since, action, run_id = _TAKEN.unpack(content)
        if not number:
            return None
        return InHand(pid, number, since, self._actions[action], run_id.decode())

    # In a child

    def begin(self) -> None:
        """This child is there, with nothing in hand."""
        self._mine = self._next
        self._number = 0
        self._words[self._mine * ROW_WORDS + _STOP] = 0
        self.let_go()

    def take(self, run_id: str, action: str) -> int:
        """The run is in hand; its number."""
        self._number += 1
        self._write(self._number, time.monotonic(), self._numbers[action], run_id.encode())
        return self._number

    def let_go(self) -> None:
        """The run has ended, or is another's."""
        self._write(0, 0.0, 0, b"")

    def mine(self) -> InHand | None:
        """The run that this process has in hand; none outside a child."""
        taken = self._read(self._mine)
        return taken if taken and taken.pid == os.getpid() else None

    def stop_is_asked(self) -> bool:
        """Whether the keeper wants the run in hand to stop."""
        return self._words[self._mine * ROW_WORDS + _STOP] == self._number

    @property
    def closed(self) -> bool:
        """Whether no further run is to be taken."""
        return bool(self._words[ROWS * ROW_WORDS])

    def _write(self, number: int, since: float, action: int, run_id: bytes) -> None:
        version_at, start = self._mine * ROW_WORDS + _VERSION, self._mine * ROW_BYTES + _TAKEN_AT
        writing = self._words[version_at] | 1  # odd already where a child died in the middle
        self._words[version_at] = writing
        _TAKEN.pack_into(self._memory, start, os.getpid(), number, since, action, run_id)
        self._words[version_at] = writing + 1


def _is_alive(pid: int) -> bool:
    """Whether there is such a process; 0 is none."""
    if not pid:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
