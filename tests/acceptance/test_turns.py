"""Runs that a child takes by itself, one behind the other: each is kept like the first."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import redis
from celery import Celery
from local_stack import PATIENCE, Stack

from callboard.connections.keys import Keys
from callboard.runs import message
from callboard.runs.seal import Sealer

KEYS = Keys()

QUEUE = "callboard"
TURN = 4.0  # seconds of a run that others wait for
Eventually = Callable[..., None]


@pytest.fixture
def broker(one_child: Stack) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(one_child.announced["environment"]["REDIS_URL"]) as client:
        yield client


def begin(stack: Stack, action: str, **params: Any) -> str:
    response = stack.call(action, params, Prefer="respond-async")
    assert response.status_code == 202
    return response.headers["Run-Id"]


@pytest.fixture
def busy(one_child: Stack, tmp_path: Path) -> Callable[[], AbstractContextManager[str]]:
    """The child has a run in hand until the block ends, and takes what begins meanwhile by
    itself: ``with busy() as run_id``."""

    @contextmanager
    def hold() -> Iterator[str]:
        gate = tmp_path / uuid4().hex
        run_id = begin(one_child, "held", until=str(gate))
        try:
            one_child.wait_for_status(run_id, "running")
            yield run_id
        finally:
            gate.touch()

    return hold


def holder(broker: redis.Redis, run_id: str) -> int:
    """The process that holds the run."""
    return int(broker.hget(f"callboard:run:{run_id}", "holder").split(b":")[1])


@pytest.fixture
def behind(
    one_child: Stack, busy: Callable[[], AbstractContextManager[str]], eventually: Eventually
) -> Callable[..., str]:
    """Start a run behind another, and return once the child has taken it."""

    def begin_behind(action: str, **params: Any) -> str:
        with busy():
            run_id = begin(one_child, action, **params)
        eventually(lambda: one_child.status(run_id) != "queued")
        return run_id

    return begin_behind


def messages_to_celery(broker_url: str) -> int:
    with Celery(broker=broker_url, set_as_current=False) as app:
        deadline = time.monotonic() + PATIENCE
        # a worker that has just started may not hear the question yet
        while not (answers := app.control.inspect(timeout=2).stats()):
            assert time.monotonic() < deadline, "no worker answers"
    (stats,) = answers.values()
    return sum(stats["total"].values())


def test_what_waits_is_run_in_order_and_celery_sees_one_message_of_it(
    one_child: Stack, busy: Callable[[], AbstractContextManager[str]]
) -> None:
    broker_url = one_child.announced["environment"]["REDIS_URL"]
    before = messages_to_celery(broker_url)
    with busy() as first:
        rest = [begin(one_child, "echo", number=number) for number in range(30)]
    runs = [one_child.run(run_id) for run_id in (first, *rest)]
    assert {run["status"] for run in runs} == {"succeeded"}
    started = [run["startedAt"] for run in runs]
    assert started == sorted(started)
    assert messages_to_celery(broker_url) - before <= 3


def test_flower_shows_each_run_with_its_own_time(one_child: Stack, eventually: Eventually) -> None:
    begin(one_child, "slow", seconds=TURN)
    succeeded, failed = begin(one_child, "echo"), begin(one_child, "tooSlow")
    flower = f"{one_child.announced['flower_url']}/api/task/info"

    def shown(run_id: str) -> dict[str, Any]:
        response = httpx.get(f"{flower}/{run_id}", timeout=60)
        return response.json() if response.status_code == 200 else {}

    eventually(lambda: shown(succeeded).get("state") == "SUCCESS")
    eventually(lambda: shown(failed).get("state") == "FAILURE")
    told = shown(succeeded)
    assert told["name"] == "actions.echo"
    assert told["runtime"] < TURN  # of this run alone, not of the turn


def test_cancel_stops_the_run_that_it_means_and_spares_the_child(
    one_child: Stack, broker: redis.Redis, behind: Callable[..., str]
) -> None:
    run_id = behind("slow", seconds=50)
    pid = holder(broker, run_id)
    one_child.cancel(run_id)
    after = behind("slow", seconds=2)
    assert holder(broker, after) == pid
    assert one_child.run(after)["status"] == "succeeded"


def test_a_timeout_ends_the_run_and_the_next_one_runs(
    one_child: Stack, behind: Callable[..., str]
) -> None:
    run_id = behind("tooSlow")
    following = begin(one_child, "echo")
    assert one_child.run(run_id)["result"]["error"] == "Timed out after 1 s"
    assert one_child.run(following)["status"] == "succeeded"
    assert one_child.run(following)["attempts"] == 1


def test_a_handler_whose_record_is_gone_is_stopped_at_its_timeout_too(
    one_child: Stack, broker: redis.Redis, behind: Callable[..., str]
) -> None:
    run_id = behind("tooSlow")  # 1 s of 30
    broker.delete(f"callboard:run:{run_id}")
    broker.zrem("callboard:open", run_id)
    following = begin(one_child, "echo")
    assert one_child.run(following)["status"] == "succeeded"


def test_a_run_outlives_its_first_lease(one_child: Stack, behind: Callable[..., str]) -> None:
    run_id = behind("slow", seconds=7)  # CALLBOARD_RECOVERY is 5
    run = one_child.run(run_id)
    assert (run["status"], run["attempts"]) == ("succeeded", 1)


def test_a_child_that_dies_loses_the_run_that_it_was_at(
    one_child: Stack, broker: redis.Redis, behind: Callable[..., str], tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    run_id = behind("held", until=str(gate))
    os.kill(holder(broker, run_id), signal.SIGKILL)
    gate.touch()
    run = one_child.run(run_id)
    assert (run["status"], run["attempts"]) == ("succeeded", 2)
    assert broker.hget(f"callboard:run:{run_id}", "lost") == b"1"


def test_a_forged_message_in_the_row_is_dropped_and_the_row_goes_on(
    one_child: Stack, broker: redis.Redis, busy: Callable[[], AbstractContextManager[str]]
) -> None:
    refused = int(broker.hget(KEYS.counters, "refused") or 0)
    with busy():
        held_back = begin(one_child, "echo")
        wakeup = message.Wakeup("actions.echo", held_back, "{}")
        wrong_key = Sealer(("w" * 40,)).sign(*wakeup)
        forgeries = [
            message.write(QUEUE, wakeup, wrong_key),
            message.write(QUEUE, wakeup._replace(task="actions.nothing"), wrong_key),
            json.dumps({"headers": []}),
            "no JSON",
            "[" * 5000,
        ]
        broker.rpush(QUEUE, *forgeries)  # in front of it
        behind = begin(one_child, "echo")
    for run_id in (held_back, behind):
        run = one_child.run(run_id)
        assert (run["status"], run["attempts"]) == ("succeeded", 1)
    assert int(broker.hget(KEYS.counters, "refused")) == refused + len(forgeries)
