"""A process that must not outlive its parent does not."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

import pytest

from worker.pool.processes import die_with_parent

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux can promise it")


def forked(child: Callable[[], None]) -> int:
    """How a process ends that runs this: its exit code, or minus the signal that killed it."""
    pid = os.fork()
    if pid == 0:
        child()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_parent_that_is_there_leaves_it_alone() -> None:
    parent = os.getpid()
    assert forked(lambda: die_with_parent(parent)) == 0


def test_a_parent_that_has_died_before_takes_it_along() -> None:
    another = os.getppid()  # is not the parent of what is forked here
    assert forked(lambda: die_with_parent(another)) == -signal.SIGKILL
