"""A worker forks its processes before it starts a thread: what a thread holds is lost in a fork."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from local_stack import Stack

ACTIONS = """
import os, threading
from callboard import action, ok

def note():
    names = sorted(thread.name for thread in threading.enumerate())
    with open("forks", "a") as file:
        file.write(f"{os.getpid()} {' '.join(names)}\\n")

os.register_at_fork(before=note)

@action
def plain(ctx):
    return ok(os.getppid())

@action
async def waits(ctx):
    return ok(os.getppid())
"""


def test_a_worker_has_no_thread_when_it_forks(start: Callable[..., Stack], tmp_path: Path) -> None:
    folder = tmp_path / "application"
    (folder / "actions").mkdir(parents=True)
    (folder / "actions" / "some.py").write_text(ACTIONS)
    stack = start("--workers", "2", cwd=folder, CALLBOARD_ASYNC_PROCESSES="2")
    stack.wait_ready()
    (worker,) = {stack.call(name).json()["data"] for name in ("plain", "waits")}
    forks = [line.partition(" ") for line in (folder / "forks").read_text().splitlines()]
    assert [names for pid, _, names in forks if int(pid) == worker] == ["MainThread"] * 4
