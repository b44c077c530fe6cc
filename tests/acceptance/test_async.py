"""Async handlers as callers see them: many at once in one process, and nobody waits for another."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
import redis
from local_stack import Stack, started

ROOM = 30  # CALLBOARD_ASYNC_RUNS

Eventually = Callable[..., None]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One child and one loop process, with room for a few runs."""
    variables = {
        "CALLBOARD_ACTIONS": "app",
        "PYTHONPATH": str(Path(__file__).parent),
        "CALLBOARD_ASYNC_RUNS": str(ROOM),
        "CALLBOARD_RECOVERY": "5",
        "FLOWER_UNAUTHENTICATED_API": "true",
    }
    with started(tmp_path_factory.mktemp("async"), "--workers", "1", **variables) as stack:
        stack.wait_ready()
        yield stack


@pytest.fixture
def broker(stack: Stack) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(stack.announced["environment"]["REDIS_URL"]) as client:
        yield client


def process(stack: Stack) -> int:
    pid: int = stack.call("processOfLoop").json()["data"]
    return pid


def begin(stack: Stack, action: str, **params: object) -> str:
    """The id of a run that nobody waits for."""
    run_id: str = stack.call(action, params, Prefer="respond-async").headers["Run-Id"]
    return run_id


@contextmanager
def held(stack: Stack, folder: Path, count: int) -> Iterator[list[str]]:
    """So many runs, that go on until the end of the block; in the end all have succeeded."""
    until = folder / uuid4().hex
    try:
        runs = [begin(stack, "hold", until=str(until)) for _ in range(count)]
        yield runs
    finally:
        until.touch()
    for run_id in runs:
        assert stack.run(run_id)["status"] == "succeeded", stack.run(run_id)


def all_at(stack: Stack, runs: Sequence[str], status: str) -> Callable[[], bool]:
    return lambda: all(stack.status(run_id) == status for run_id in runs)


def log(stack: Stack) -> str:
    """What the worker has written."""
    return (stack.data_dir / "log" / "worker.log").read_text()


def test_many_run_at_once_in_one_process(stack: Stack) -> None:
    def meet(_: int) -> httpx.Response:
        return stack.call("meet", {"name": "all", "count": ROOM})

    with ThreadPoolExecutor(ROOM) as pool:
        responses = list(pool.map(meet, range(ROOM)))
    assert {response.status_code for response in responses} == {200}
    assert {response.json()["data"] for response in responses} == {process(stack)}


def test_one_that_is_full_takes_no_more(
    stack: Stack, tmp_path: Path, eventually: Eventually
) -> None:
    with held(stack, tmp_path, ROOM) as runs:
        eventually(all_at(stack, runs, "running"))
        further = begin(stack, "processOfLoop")
        assert stack.call("echo").status_code == 200  # a plain one does not wait behind them
        assert stack.status(further) == "queued"
    assert stack.run(further)["status"] == "succeeded"


def test_it_does_not_wait_behind_plain_ones(stack: Stack, tmp_path: Path) -> None:
    until = tmp_path / "until"
    plain = [begin(stack, "held", until=str(until)) for _ in range(3)]
    stack.wait_for_status(plain[0], "running")
    assert process(stack)
    assert stack.status(plain[1]) == "queued"
    until.touch()
    assert {stack.run(run_id)["status"] for run_id in plain} == {"succeeded"}


def test_one_that_is_out_of_time_is_canceled_and_told_so(stack: Stack, tmp_path: Path) -> None:
    pid = process(stack)
    response = stack.call("tooLate", {"file": str(tmp_path / "told")})
    assert (response.status_code, response.json()["error"]) == (500, "Timed out after 1 s")
    assert (tmp_path / "told").read_text() == "canceled"
    assert process(stack) == pid


def test_one_that_is_canceled_is_told_so(
    stack: Stack, tmp_path: Path, eventually: Eventually
) -> None:
    pid, told = process(stack), tmp_path / "told"
    run_id = begin(stack, "toCancel", file=str(told))
    eventually(lambda: told.exists() and told.read_text() == "begun")
    stack.cancel(run_id)
    eventually(lambda: told.read_text() == "canceled")
    assert process(stack) == pid


@pytest.mark.parametrize("where", ["handler", "task"])
@pytest.mark.parametrize("how", ["exit", "interrupt"])
def test_no_exception_ends_the_process(stack: Stack, how: str, where: str) -> None:
    pid = process(stack)
    response = stack.call("leaveLoop", {"how": how, "where": where})
    assert response.status_code == (500 if where == "handler" else 200)
    assert process(stack) == pid


def test_what_blocks_the_loop_is_named_with_its_stack(stack: Stack, eventually: Eventually) -> None:
    pid = process(stack)
    run_id = begin(stack, "blocks", seconds=1.5)
    assert stack.run(run_id)["attempts"] == 1
    lines = [line for line in log(stack).splitlines() if "blocks the loop" in line]
    [line] = [line for line in lines if run_id in line]  # a busy machine may hold it up, too
    assert "action=blocks" in line
    assert 'time.sleep(ctx.params["seconds"])' in log(stack)
    assert process(stack) == pid


@pytest.mark.parametrize("action", ["deaf", "blocks"])
def test_one_that_cannot_be_stopped_costs_others_a_restart_but_no_loss(
    stack: Stack, broker: redis.Redis, tmp_path: Path, eventually: Eventually, action: str
) -> None:
    pid = process(stack)
    with held(stack, tmp_path, 5) as runs:
        eventually(all_at(stack, runs, "running"))
        ended = stack.run(begin(stack, action, seconds=60))
        assert ended["result"]["error"] == "Timed out after 0.5 s"
        assert process(stack) != pid
        eventually(all_at(stack, runs, "running"))
    lost = {broker.hget(f"callboard:run:{run_id}", "lost") for run_id in runs}
    assert lost <= {b"0", None}
    assert {stack.run(run_id)["attempts"] for run_id in runs} == {2}


def test_a_process_that_is_killed_loses_no_run(
    stack: Stack, broker: redis.Redis, tmp_path: Path, eventually: Eventually
) -> None:
    with held(stack, tmp_path, 5) as runs:
        eventually(all_at(stack, runs, "running"))
        os.kill(process(stack), signal.SIGKILL)
        keys = [f"callboard:run:{run_id}" for run_id in runs]
        eventually(lambda: {broker.hget(key, "attempt") for key in keys} == {b"2"})


def test_its_lines_in_the_log_name_the_run(stack: Stack, eventually: Eventually) -> None:
    run_id = stack.call("processOfLoop", {"log": True}).headers["Run-Id"]
    for text in ("own line", "waits"):
        eventually(
            lambda text=text: any(
                run_id in line and "action=processOfLoop" in line
                for line in log(stack).splitlines()
                if text in line
            )
        )


def test_flower_sees_it(stack: Stack, eventually: Eventually) -> None:
    runs: list[str] = []  # Flower may be connecting when the first ones are executed

    def seen(run_id: str) -> bool:
        found = httpx.get(f"{stack.announced['flower_url']}/api/task/info/{run_id}", timeout=60)
        return found.status_code == 200 and found.json()["state"] == "SUCCESS"

    def one_is_seen() -> bool:
        runs.append(stack.call("processOfLoop").headers["Run-Id"])
        return any(map(seen, runs[-20:]))  # Flower is some runs behind on a busy machine

    eventually(one_is_seen)


def test_runs_of_a_worker_that_stops_are_handed_on(tmp_path: Path) -> None:
    variables = {"CALLBOARD_ACTIONS": "app", "PYTHONPATH": str(Path(__file__).parent)}
    until = tmp_path / "until"
    with started(tmp_path, "--workers", "1", **variables) as stack:
        stack.wait_ready()
        run_id = begin(stack, "hold", until=str(until))
        stack.wait_for_status(run_id, "running")
        stack.stop()
    until.touch()
    with started(tmp_path, "--workers", "1", **variables) as stack:
        stack.wait_ready()
        run = stack.run(run_id)
        assert (run["status"], run["attempts"]) == ("succeeded", 2)
