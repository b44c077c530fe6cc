"""A process that is forked from the test, and ends with it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["forked"]


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
