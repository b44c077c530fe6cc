"""Supervised threads: what they raise is told, they go on, and the probes hear of it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator

import pytest
import structlog.testing

from callboard.processes import threads
from callboard.processes.threads import down, supervise

Eventually = Callable[..., None]


@pytest.fixture
def stopped() -> Iterator[threading.Event]:
    stopped = threading.Event()
    yield stopped
    stopped.set()


@pytest.mark.parametrize(
    "error", [KeyError("what"), MemoryError(), RecursionError(), SystemExit(1)]
)
def test_a_thread_that_raised_is_told_and_goes_on(
    stopped: threading.Event, eventually: Eventually, error: BaseException
) -> None:
    calls: list[int] = []

    def run() -> None:
        calls.append(1)
        if len(calls) < 3:
            raise error
        stopped.wait()

    with structlog.testing.capture_logs() as lines:
        supervise("fragile", run, stopped)
        eventually(lambda: len(calls) == 3)
    assert [(line["thread"], line["again_in"]) for line in lines] == [
        ("fragile", 0.1),
        ("fragile", 0.2),
    ]
    assert lines[0]["exc_info"] is error
    assert error.__traceback__ is not None


def test_the_process_is_not_ready_until_the_thread_has_run_a_while(
    stopped: threading.Event, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "SETTLED_SECONDS", 0.3)
    failed = threading.Event()

    def run() -> None:
        if not failed.is_set():
            failed.set()
            raise ValueError
        stopped.wait()

    thread = supervise("fragile", run, stopped)
    eventually(lambda: down() == ["fragile"])
    eventually(lambda: down() == [])
    stopped.set()
    thread.join(5)


def test_the_pause_is_bounded_and_a_stop_ends_it(
    stopped: threading.Event, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "FIRST_PAUSE", 4.0)
    failed = threading.Event()

    def run() -> None:
        failed.set()
        raise ValueError

    with structlog.testing.capture_logs() as lines:
        thread = supervise("broken", run, stopped)
        eventually(lambda: lines)
        stopped.set()
        thread.join(2)
    assert [line["again_in"] for line in lines] == [4.0]
    assert down() == []


def test_a_thread_that_ended_by_itself_is_missed_by_nobody(stopped: threading.Event) -> None:
    supervise("short", lambda: None, stopped).join(5)
    assert down() == []


class Killed(BaseException):
    """As gevent ends a greenlet."""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_was_killed_is_missed(stopped: threading.Event) -> None:
    def leave() -> None:
        raise Killed

    thread = supervise("gone", leave, stopped)
    thread.join(5)
    assert down() == ["gone"]
    threads._supervised.clear()


def test_a_log_that_cannot_be_written_ends_no_thread(
    stopped: threading.Event, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def error(self, *_: object, **__: object) -> None:
            raise BrokenPipeError

    monkeypatch.setattr(threads, "_log", Broken())
    calls: list[int] = []

    def run() -> None:
        calls.append(1)
        raise ValueError

    supervise("untold", run, stopped)
    eventually(lambda: len(calls) >= 2)


def test_a_forked_process_misses_none_of_its_parents_threads(stopped: threading.Event) -> None:
    supervise("parents", stopped.wait, stopped)
    pid = os.fork()
    if pid == 0:
        os._exit(len(down()))
    assert os.waitpid(pid, 0)[1] == 0
