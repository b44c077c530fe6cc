"""Hooks in the real processes: begun after the fork, told of what was stopped, ended at the end."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from local_stack import STOP, Stack
from redis import Redis

from callboard.connections import heartbeat
from callboard.connections.keys import Keys

ACTIONS = """
import asyncio, os, time
from callboard import action, ok

@action
def plain(ctx):
    return ok(ctx.state)

@action
async def waits(ctx):
    return ok(ctx.state)

@action(timeout=0.5)
def too_slow(ctx):
    while True:
        time.sleep(0.01)

@action(timeout=0.5)
async def too_slow_async(ctx):
    await asyncio.sleep(1000)

@action(timeout=0.5)
def fail_and_hang(ctx):
    raise LookupError("at once")

@action(timeout=0.5)
async def fail_and_hang_async(ctx):
    raise LookupError("at once")

@action(on_worker_lost="fail")
def die(ctx):
    os._exit(3)
"""

HOOKS = """
import asyncio, os
from pathlib import Path
from callboard import hooks

NOTES = Path("notes")

def note(text):
    with NOTES.open("a") as file:
        file.write(text + "\\n")

@hooks.process
def process():
    if Path("broken").exists():
        raise LookupError("no DSN")
    note(f"begins {os.getpid()}")
    yield {"pid": os.getpid()}
    note(f"ends {os.getpid()}")

@hooks.around
def around(ctx, call_next):
    try:
        return call_next()
    finally:
        note(f"leaves {ctx.action}")

@hooks.on_error
async def told(ctx, error):
    note(f"{ctx.action}: {error!r}")
    if "Hang" in ctx.action:
        await asyncio.sleep(1000)

@hooks.on_end
def ended(ctx, result):
    note(f"{ctx.action} ends: {result.error}")
"""

Start = Callable[..., Stack]


@pytest.fixture
def application(tmp_path: Path) -> Path:
    """An application with hooks, in a folder of its own."""
    folder = tmp_path / "application"
    (folder / "actions").mkdir(parents=True)
    (folder / "actions" / "some.py").write_text(ACTIONS)
    (folder / "actions" / "hooks.py").write_text(HOOKS)
    return folder


def test_a_hook_that_raises_ends_the_start_with_its_reason(start: Start, application: Path) -> None:
    (application / "broken").touch()
    stack = start("--workers", "1", cwd=application)
    assert stack.process.wait(timeout=90) == 1, stack.printed
    why = r"callboard: .*hooks\.py:\d+: @hooks\.process 'process' raised LookupError: no DSN"
    assert re.search(why, stack.printed)


def test_hooks_in_the_processes_of_a_worker(
    start: Start, application: Path, eventually: Callable[..., None]
) -> None:
    stack = start("--workers", "1", cwd=application)
    stack.wait_ready()
    notes = application / "notes"
    pids = {stack.call(name).json()["data"]["pid"] for name in ("plain", "waits")}
    assert len(pids) == 2
    assert {f"begins {pid}" for pid in pids} <= set(notes.read_text().splitlines())
    for action in ("tooSlow", "tooSlowAsync"):
        assert stack.call(action).json()["error"] == "Timed out after 0.5 s"
        told = [
            f"leaves {action}",
            f"{action}: TimeoutError('Timed out after 0.5 s')",
            f"{action} ends: Timed out after 0.5 s",
        ]
        assert [line for line in notes.read_text().splitlines() if action in line] == told

    for action in ("failAndHang", "failAndHangAsync"):
        assert stack.call(action).json()["error"] == "Timed out after 0.5 s"
        assert f"{action}: LookupError('at once')" in notes.read_text().splitlines()
    assert {stack.call(name).json()["data"]["pid"] for name in ("plain", "waits")} == pids

    (application / "broken").touch()
    assert stack.call("die").json()["error"] == "Worker lost"
    with Redis.from_url(stack.announced["environment"]["REDIS_URL"]) as client:
        workers = Keys().worker
        eventually(lambda: "no DSN" in "".join(heartbeat.unready(client, workers).values()))
        assert not heartbeat.seen(client, workers)
        (application / "broken").unlink()
        eventually(lambda: heartbeat.seen(client, workers))
    pids |= {stack.call("plain").json()["data"]["pid"]}
    assert len(pids) == 3

    assert stack.stop() < STOP
    ended = {line for line in notes.read_text().splitlines() if line.startswith("ends ")}
    assert len(ended & {f"ends {pid}" for pid in pids}) == 2  # all but the one that died
