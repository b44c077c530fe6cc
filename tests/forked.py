"""Processes that are forked from the test."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["exit_code", "forked"]


def exit_code(does: Callable[[], object]) -> int:
    """How a process ends that does this: its exit code, or minus the signal that killed it."""
    pid = os.fork()
    if pid == 0:
        try:
            does()
        except BaseException:  # noqa: BLE001 - it must never return into the test
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@contextmanager
def forked(does: Callable[[], object]) -> Iterator[int]:
    """A process that has done this and waits; its id. It ends with the block."""
    done_read, done_write = os.pipe()
    end_read, end_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(end_write)
        does()
        os.write(done_write, b"x")
        os.read(end_read, 1)
        os._exit(0)
    os.read(done_read, 1)
    try:
        yield pid
    finally:
        os.close(end_write)
        os.waitpid(pid, 0)
        for end in (done_read, done_write, end_read):
            os.close(end)
