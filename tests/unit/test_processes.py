"""A process that must not outlive its parent does not, and one that is born unsound is told."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from forked import exit_code

from worker.pool.processes import begin_child, die_with_parent, half_imported

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux can promise it")


def test_a_parent_that_is_there_leaves_it_alone() -> None:
    parent = os.getpid()
    assert exit_code(lambda: die_with_parent(parent)) == 0


def test_a_parent_that_has_died_before_takes_it_along() -> None:
    another = os.getppid()  # is not the parent of what is forked here
    assert exit_code(lambda: die_with_parent(another)) == -signal.SIGKILL


@pytest.fixture
def importing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module that another thread imports meanwhile."""
    name = "slowly_imported"
    begun, end = threading.Event(), threading.Event()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "slow_import", (begun, end), raising=False)
    (tmp_path / f"{name}.py").write_text(
        "import sys\nbegun, end = sys.slow_import\nbegun.set()\nend.wait(60)\n"
    )
    thread = threading.Thread(target=importlib.import_module, args=(name,))
    thread.start()
    try:
        assert begun.wait(60)
        yield name
    finally:
        end.set()
        thread.join()
        sys.modules.pop(name, None)


def test_a_fork_in_the_middle_of_an_import_is_seen(importing: str) -> None:
    def is_seen() -> None:
        assert half_imported() == [importing]

    assert exit_code(is_seen) == 0


def test_a_child_that_is_forked_then_ends(importing: str) -> None:
    parent = os.getpid()
    assert exit_code(lambda: begin_child(parent)) == 1


def test_a_fork_while_nothing_is_imported_is_sound() -> None:
    parent = os.getpid()

    def is_sound() -> None:
        begin_child(parent)
        assert half_imported() == []

    assert exit_code(is_sound) == 0
