"""The table: which runs a worker's processes execute, in memory that they share with its keeper.

A process takes runs on its own, so Celery's main process is not told of each. It need not be: the
keeper looks here, and a short run that it never sees needs no keeping. Memory shared through `fork`
costs a process two writes a run and goes on while the broker is away.

A row has one run at a time. Its process writes it, the keeper reads it.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["ROW_WORDS", "ActiveRun", "Table", "is_alive"]

ROW_WORDS = 16  # of eight bytes
ROW_BYTES = 8 * ROW_WORDS
TRIES = 3  # to read a row that is just being written

# A row's words. The process writes all but the last: the version is odd while it does.
_VERSION = 0
_PID = 1
_NUMBER = 2
_TAKEN = struct.Struct("@QQdQ36s")  # process id, number, start (time.monotonic), action, run id
_TAKEN_AT = 8 * _PID
_SPENT = ROW_WORDS - 2  # milliseconds of the run's time that were over before
_STOP = ROW_WORDS - 1  # the keeper writes here the number that is to stop


class ActiveRun(NamedTuple):
    """A run that a process executes."""

    pid: int
    number: int  # of the process's runs, from 1: a run that it gets twice is another one
    since: float  # time.monotonic seconds, before the claim
    action: str
    run_id: str
    row: int  # of the table


class Table:
    """Made by the main process before it forks. ``size``: rows."""

    def __init__(self, actions: Sequence[str], size: int) -> None:
        self._actions = list(actions)
        self._numbers = {name: number for number, name in enumerate(self._actions)}
        self._size = size
        self._memory = mmap.mmap(-1, (size + 1) * ROW_BYTES)  # the last row: a flag of all
        self._words = memoryview(self._memory).cast("Q")

    @property
    def flag(self) -> int:
        """A number of all who share the table."""
        return self._words[self._size * ROW_WORDS]

    @flag.setter
    def flag(self, value: int) -> None:
        self._words[self._size * ROW_WORDS] = value

    def pids(self) -> list[int]:
        """The process of each row; 0 for a row that never had one."""
        return self._words[_PID : self._size * ROW_WORDS : ROW_WORDS].tolist()

    def read(self, row: int) -> ActiveRun | None:
        """What stands in the row. None for no run, and for one that changes all the time: it has
        just begun, or just ended."""
        start = row * ROW_WORDS
        if not self._words[start + _NUMBER]:
            return None
        at = row * ROW_BYTES + _TAKEN_AT
        for _ in range(TRIES):
            version = self._words[start + _VERSION]
            content = self._memory[at : at + _TAKEN.size]
            if version % 2 == 0 and self._words[start + _VERSION] == version:
                return self._taken(content, row)
        return None

    def write(self, row: int, number: int, run_id: str, action: str) -> None:
        """This process executes the run."""
        self._words[row * ROW_WORDS + _SPENT] = 0
        self._write(row, number, time.monotonic(), self._numbers[action], run_id.encode())

    def note_spent(self, row: int, seconds: float) -> None:
        """So much of the time that the run has was over before it came here."""
        self._words[row * ROW_WORDS + _SPENT] = round(seconds * 1000)

    def spent(self, row: int) -> float:
        """What `note_spent` has noted of the run, in seconds."""
        return self._words[row * ROW_WORDS + _SPENT] / 1000

    def clear(self, row: int) -> None:
        """This process executes nothing there."""
        self._write(row, 0, 0.0, 0, b"")

    def empty(self, row: int) -> None:
        """The process of the row is gone, and what it had is known to whom it concerns."""
        self._words[row * ROW_WORDS + _NUMBER] = 0

    def has(self, wanted: ActiveRun) -> bool:
        """Whether the run is in hand."""
        return self.read(wanted.row) == wanted

    def request_stop(self, wanted: ActiveRun) -> None:
        """Mark the run, if it is in hand, for `stop_requested`; a signal then tells its process."""
        if self.has(wanted):
            self._words[wanted.row * ROW_WORDS + _STOP] = wanted.number

    def forget_stop(self, row: int) -> None:
        """For the next process of the row, whose numbers begin anew."""
        self._words[row * ROW_WORDS + _STOP] = 0

    def stop_requested(self, row: int) -> int:
        """The number of the run that is to stop; 0 for none."""
        return self._words[row * ROW_WORDS + _STOP]

    def _taken(self, content: bytes, row: int) -> ActiveRun | None:
        pid, number, since, action, run_id = _TAKEN.unpack(content)
        if not number:
            return None
        return ActiveRun(pid, number, since, self._actions[action], run_id.decode(), row)

    def _write(self, row: int, number: int, since: float, action: int, run_id: bytes) -> None:
        version_at = row * ROW_WORDS + _VERSION
        writing = self._words[version_at] | 1  # odd already where a process died in the middle
        self._words[version_at] = writing
        _TAKEN.pack_into(
            self._memory, row * ROW_BYTES + _TAKEN_AT, os.getpid(), number, since, action, run_id
        )
        self._words[version_at] = writing + 1


def is_alive(pid: int) -> bool:
    """Whether this is a child of this process that nobody has waited for, or the process itself.

    That there is a process of this id would not do: when a child is gone, its id may be any
    other's. 0 is none.
    """
    if pid in (0, os.getpid()):
        return pid != 0
    try:
        if hasattr(os, "waitid"):
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        else:  # macOS before Python 3.13
            os.kill(pid, 0)
    except (ChildProcessError, ProcessLookupError):
        return False
    return True
