"""One loop process, without the rest of its worker."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from billiard import get_context
from scheduled_app import ScheduledApp

from callboard import ActionResult, AsyncActionContext, action, hooks, ok
from callboard.connections.keys import Keys
from callboard.registry import Registry
from callboard.runs.counters import read_counts
from callboard.runs.seal import Call
from callboard.schedules.fires import Fire
from callboard.sdk.hooks import Hooks
from worker.celery_app import create_app
from worker.lease.slots import Slots
from worker.loop.process import run_loop

ROOM = 3
QUEUE = "callboard.async"
NONE = Hooks()

Eventually = Callable[..., None]


@action(timeout=60)
async def hold(ctx: AsyncActionContext) -> ActionResult:
    """Until the file is there."""
    while not Path(ctx.params["until"]).exists():
        await asyncio.sleep(0.01)
    return ok()


@action(timeout=60, on_worker_lost="fail")
async def hold_once(ctx: AsyncActionContext) -> ActionResult:
    await asyncio.Event().wait()
    return ok()


@action
def plain(ctx: Any) -> ActionResult:
    return ok()


@hooks.process
async def folder() -> AsyncIterator[Path]:
    """Raises until there is one; notes in it that it has ended."""
    path = Path(os.environ["FOLDER"])
    if not path.exists():
        raise LookupError(f"no {path.name}")
    yield path
    await asyncio.sleep(0)
    (path / "ended").touch()


@action
async def state(ctx: AsyncActionContext[Path]) -> ActionResult:
    return ok(ctx.state.name)


ACTIONS: dict[str, Any] = {one.name: one for one in (hold, hold_once, plain, state)}


class LoopProcess:
    """One that takes runs from a queue of its own."""

    def __init__(self, app: ScheduledApp, folder: Path, hooks: Hooks = NONE) -> None:
        settings = app.settings.model_copy(update={"stop_grace": 1.5})
        self.celery = create_app(settings, Registry(actions=ACTIONS, hooks=hooks))
        self.services = self.celery.services
        self.runs = self.services.runs
        self.redis = app.redis
        self.until = folder / uuid4().hex
        self.slots = Slots(list(ACTIONS), ROOM)
        self.process: Any = None

    def start(self, max_memory: int | None = None) -> None:
        arguments = (self.celery, "worker@here", self.slots, [QUEUE], max_memory, os.getpid())
        self.process = get_context("fork").Process(target=run_loop, args=arguments)
        self.process.start()
        self.slots.pid = self.process.pid

    def accept(self, what: Any = hold, run_id: str | None = None, **more: Any) -> str:
        call = Call(caller="alice", params={"until": str(self.until)}, **more)
        run_id = run_id or str(uuid4())
        return self.runs.accept(run_id, what, call, max_queue=99, result_ttl=60).run_id

    def status(self, run_id: str) -> str:
        record = self.runs.read(run_id)
        assert record is not None
        return record.status

    def all_are(self, runs: list[str], status: str) -> Callable[[], bool]:
        return lambda: {self.status(run_id) for run_id in runs} == {status}

    def close(self) -> None:
        if self.process and self.process.is_alive():
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.join()
        self.runs.close()
        self.celery.close()


@pytest.fixture
def loop(app: ScheduledApp, tmp_path: Path) -> Iterator[LoopProcess]:
    loop = LoopProcess(app, tmp_path)
    yield loop
    loop.close()


def test_it_has_as_many_runs_as_there_is_room(loop: LoopProcess, eventually: Eventually) -> None:
    runs = [loop.accept() for _ in range(ROOM + 2)]
    loop.start()
    eventually(loop.all_are(runs[:ROOM], "running"))
    assert loop.all_are(runs[ROOM:], "queued")()
    assert loop.redis.llen(QUEUE) == 2  # for another worker
    loop.until.touch()
    eventually(loop.all_are(runs, "succeeded"))


def test_one_that_is_told_to_end_does_when_it_is_empty(
    loop: LoopProcess, eventually: Eventually
) -> None:
    first = loop.accept()
    loop.start()
    eventually(loop.all_are([first], "running"))
    os.kill(loop.process.pid, signal.SIGTERM)
    loop.until.touch()
    loop.process.join(60)
    assert loop.process.exitcode == 0
    assert loop.status(first) == "succeeded"
    further = loop.accept()
    assert loop.status(further) == "queued"


def test_one_that_has_grown_takes_no_more_and_ends_when_it_is_empty(
    loop: LoopProcess, eventually: Eventually
) -> None:
    first = loop.accept()
    loop.start(max_memory=1)  # KiB
    eventually(loop.all_are([first], "running"))
    loop.until.touch()
    loop.process.join(60)
    assert loop.process.exitcode == 0
    assert loop.status(first) == "succeeded"


def test_at_the_end_of_the_grace_runs_are_handed_back(
    loop: LoopProcess, eventually: Eventually
) -> None:
    again, once = loop.accept(), loop.accept(hold_once)
    loop.start()
    eventually(loop.all_are([again, once], "running"))
    loop.services.scoreboard.close()
    loop.process.join(60)
    assert loop.process.exitcode == 0
    record = loop.runs.read(again)
    assert record is not None
    assert (record.status, record.lost) == ("queued", 0)
    record = loop.runs.read(once)
    assert record is not None
    assert (record.status, record.error) == ("failed", "Worker lost")


def test_a_message_of_a_plain_action_goes_to_its_own_queue(
    loop: LoopProcess, eventually: Eventually
) -> None:
    run_id = loop.accept(plain)
    loop.redis.rename("callboard", QUEUE)
    loop.start()
    eventually(lambda: loop.redis.llen("callboard") == 1)
    assert loop.status(run_id) == "queued"


def test_a_message_that_is_not_signed_is_dropped_and_counted(
    loop: LoopProcess, eventually: Eventually
) -> None:
    for text in (b"", b"\xff", b"null", b"{}", b"[" * 1000):
        loop.redis.lpush(QUEUE, text)
    run_id = loop.accept()
    loop.until.touch()
    loop.start()
    eventually(loop.all_are([run_id], "succeeded"))
    eventually(lambda: loop.redis.hget("callboard:counters", "refused") == b"5")


def test_a_queue_that_is_none_costs_only_itself(loop: LoopProcess, eventually: Eventually) -> None:
    loop.redis.set(QUEUE, "spoiled")
    loop.start()
    loop.redis.delete(QUEUE)
    run_id = loop.accept()
    loop.until.touch()
    eventually(loop.all_are([run_id], "succeeded"))


def test_a_scheduled_run_takes_its_fire_and_closes_it(
    app: ScheduledApp, loop: LoopProcess, eventually: Eventually
) -> None:
    """One acceptance has the fire: a second run of it ends before its handler begins."""
    run_id, moment = str(uuid4()), app.clock()
    app.fires.insert(Fire(run_id=run_id, schedule="s", planned=moment, created=moment))
    loop.until.touch()
    loop.accept(run_id=run_id, scheduled=True, acceptance="first")
    loop.start()
    eventually(lambda: app.outcomes() == ["succeeded"])
    [fire] = app.history()
    assert (fire.attempts, fire.started is not None) == (1, True)
    assert sum(read_counts(app.redis, Keys(), ()).late["s"].counts) == 1
    app.redis.delete(f"callboard:run:{run_id}")  # as a Redis that has forgotten it
    loop.accept(run_id=run_id, scheduled=True, acceptance="second")
    eventually(lambda: loop.status(run_id) == "canceled")
    assert app.outcomes() == ["succeeded"]


def test_its_hook_is_called_again_until_it_does_not_raise_and_ends_with_it(
    app: ScheduledApp, tmp_path: Path, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "resources"
    monkeypatch.setenv("FOLDER", str(path))
    loop = LoopProcess(app, tmp_path, Hooks.of([folder]))
    try:
        reports = loop.services.reports  # made before the process is
        run_id = loop.accept(state)
        loop.start()
        eventually(reports.failures)
        why = r".*test_loop\.py:\d+: @hooks\.process 'folder' raised LookupError: no resources"
        assert re.fullmatch(why, reports.failures()[0])
        assert loop.status(run_id) == "queued"  # nothing is taken meanwhile
        path.mkdir()
        eventually(loop.all_are([run_id], "succeeded"))
        assert reports.failures() == []
        os.kill(loop.process.pid, signal.SIGTERM)
        loop.process.join(60)
        assert loop.process.exitcode == 0
        assert (path / "ended").exists()
    finally:
        loop.close()
