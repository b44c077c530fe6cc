"""What one run leaves behind, the next caller's run does not find; what it started has ended."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from app.leftovers import CHANGES, STARTS
from local_stack import Stack

Eventually = Callable[..., None]

SOON = 20.0  # seconds: long before such a process ends by itself, or its run is out of time


def look(stack: Stack) -> Any:
    return stack.call("look", as_user="bob").json()["data"]


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_of_the_process_ends_with_the_run(one_child: Stack, what: str) -> None:
    before = look(one_child)
    pid = one_child.call("leave", {"what": what}, as_user="alice").json()["data"]
    after = look(one_child)
    assert after == before
    assert after["pid"] == pid  # the same process


def test_a_run_can_be_canceled_after_one_that_ignored_the_signal(one_child: Stack) -> None:
    for what in ("signals", "blocked signals"):
        pid = one_child.call("leave", {"what": what}).json()["data"]
    started = one_child.call("slow", {"seconds": 20}, Prefer="respond-async")
    one_child.wait_for_status(started.headers["Run-Id"], "running")
    one_child.cancel(started.headers["Run-Id"])
    assert look(one_child)["pid"] == pid  # which a hard stop would have killed


def test_a_context_that_was_kept_acts_for_nobody(one_child: Stack) -> None:
    one_child.call("keep", as_user="alice").raise_for_status()
    found = one_child.call("useKept", as_user="bob").json()["data"]
    assert found["refused"] == 3
    assert "a run that has ended" in found["error"]
    assert found["by"] == ["alice"]  # by her own run, though it had closed the connection


def written(file: Path, lines: int = 1) -> bool:
    """Whether so many have written themselves into the file, each a whole line."""
    return file.exists() and file.read_text().count("\n") >= lines


def alive(file: Path) -> list[int]:
    """Those that wrote themselves into the file and still live (or are not taken away)."""
    assert written(file)
    pids = [int(line) for line in file.read_text().split()]
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


@pytest.mark.parametrize("how", STARTS)
@pytest.mark.parametrize("end", ["return", "raise"])
def test_a_process_ends_before_its_run_does(
    one_child: Stack, tmp_path: Path, how: str, end: str
) -> None:
    file = tmp_path / "pids"
    response = one_child.call("startProcess", {"how": how, "end": end, "file": str(file)})
    assert response.status_code == (200 if end == "return" else 500)
    assert alive(file) == []


@pytest.mark.parametrize("how", STARTS)
def test_a_process_ends_with_its_child_that_dies(
    one_child: Stack, tmp_path: Path, eventually: Eventually, how: str
) -> None:
    file = tmp_path / "pids"
    response = one_child.call("startProcess", {"how": how, "end": "die", "file": str(file)})
    assert response.json()["error"] == "Worker lost"
    eventually(lambda: not alive(file), within=SOON)


@pytest.mark.parametrize("how", ["program", "pipe", "session", "daemon", "process"])
def test_a_process_ends_with_a_run_that_is_out_of_time(
    one_child: Stack, tmp_path: Path, eventually: Eventually, how: str
) -> None:
    file = tmp_path / "pids"
    response = one_child.call("overrunWithProcess", {"how": how, "file": str(file)})
    assert response.json()["error"] == "Timed out after 5 s"
    eventually(lambda: not alive(file), within=SOON)


def test_a_canceled_run_takes_its_process_with_it(
    one_child: Stack, tmp_path: Path, eventually: Eventually
) -> None:
    file = tmp_path / "pids"
    params = {"how": "pipe", "end": "wait", "file": str(file)}
    started = one_child.call("startProcess", params, Prefer="respond-async")
    eventually(lambda: written(file, 2))
    one_child.cancel(started.headers["Run-Id"])
    eventually(lambda: not alive(file), within=SOON)


def test_a_forked_process_that_comes_back_is_no_second_run(one_child: Stack) -> None:
    parent, returned = one_child.call("forkAndComeBack").json()["data"]
    assert parent == returned
    assert look(one_child)["pid"] == parent


@pytest.mark.parametrize("kind", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize(
    ("what", "expected"),
    [("pool", [2, 4]), ("executor", [2, 4]), ("manager", [2, 4]), ("terminated", -signal.SIGTERM)],
)
def test_handlers_may_use_processes(one_child: Stack, what: str, kind: str, expected: Any) -> None:
    response = one_child.call("useProcesses", {"what": what, "kind": kind})
    assert response.json() == {"success": True, "data": expected}


def test_the_helpers_of_multiprocessing_are_left_alone(one_child: Stack) -> None:
    for _ in range(3):
        assert one_child.call("useProcesses", {"what": "memory"}).json()["data"] is True
    assert "died unexpectedly" not in one_child.printed


def test_a_worker_that_is_killed_takes_along_what_runs_started(
    start: Callable[..., Stack], tmp_path: Path, eventually: Eventually
) -> None:
    here = str(Path(__file__).parent)
    stack = start("--workers", "3", CALLBOARD_ACTIONS="app", PYTHONPATH=here)
    stack.wait_ready()
    files = [tmp_path / how for how in ("fork", "program", "daemon")]
    for file in files:
        params = {"how": file.name, "end": "wait", "file": str(file)}
        stack.call("startProcess", params, Prefer="respond-async")
        eventually(lambda file=file: written(file))
    worker = next(
        pid for pid, command in stack.descendants().items() if "-A worker worker" in command
    )
    os.kill(worker, signal.SIGKILL)
    eventually(lambda: not [pid for file in files for pid in alive(file)], within=SOON)
