"""What a function changed in its process is put back, also in the process of a test."""

from __future__ import annotations

import contextvars
import decimal
import os
import signal
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from worker.runs.isolation import Isolation

TENANT = contextvars.ContextVar("TENANT", default="nobody")


def _look() -> tuple[Any, ...]:
    return (
        TENANT.get(),
        decimal.getcontext().prec,
        os.getcwd(),
        dict(os.environ),
        list(warnings.filters),
        [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2)],
        time.tzname,
    )


def _change(directory: Path) -> None:
    TENANT.set("alice")
    decimal.getcontext().prec = 3
    os.chdir(directory)
    os.environ.update(TENANT="alice", PATH="/nowhere", TZ="Asia/Tokyo")
    del os.environ["HOME"]
    warnings.simplefilter("ignore")
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


def _change_and_raise(directory: Path) -> None:
    _change(directory)
    raise KeyError


@pytest.mark.parametrize("change", [_change, _change_and_raise])
def test_all_is_as_before(
    change: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/root")
    isolation = Isolation()
    before = _look()
    with pytest.raises(KeyError) if change is _change_and_raise else warnings.catch_warnings():
        isolation.run(change, tmp_path)
    assert _look() == before
    assert isolation.run(_look) == before


def test_what_was_set_before_the_runs_is_there_in_each() -> None:
    def set_and_look() -> tuple[str, int]:
        token = TENANT.set("application")
        try:
            isolation = Isolation()
            return isolation.run(TENANT.get), isolation.run(lambda: decimal.getcontext().prec)
        finally:
            TENANT.reset(token)

    assert set_and_look() == ("application", decimal.getcontext().prec)


def test_a_fork_that_comes_back_ends() -> None:
    returned = Isolation().run(os.fork)
    assert returned > 0
    assert os.waitpid(returned, 0)[1] == 0
