"""A process that must not outlive its parent does not."""

from __future__ import annotations

import os
import signal
import sys

import pytest
from forked import exit_code

from worker.pool.processes import die_with_parent

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux can promise it")


def test_a_parent_that_is_there_leaves_it_alone() -> None:
    parent = os.getpid()
    assert exit_code(lambda: die_with_parent(parent)) == 0


def test_a_parent_that_has_died_before_takes_it_along() -> None:
    another = os.getppid()  # is not the parent of what is forked here
    assert exit_code(lambda: die_with_parent(another)) == -signal.SIGKILL
