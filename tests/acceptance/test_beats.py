"""Schedules with the real beat and the real clock: each planned fire once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from local_stack import Stack

from callboard.connections import heartbeat
from callboard.connections.keys import Keys

KEYS = Keys()

SCHEDULES = 20  # all due at the same moment, so that a kill is likely to hit in between
A_MINUTE = 120.0  # seconds until a fire and its run are over, whenever a test begins

ACTIONS = """
from callboard import action, ok

@action
def tick(ctx):
    ctx.db["starts"].insert_one({"run": ctx.run_id})
    return ok()
"""
DECLARED = f"""
from callboard import Schedule

SCHEDULES = [Schedule(f"tick-{{n}}", "tick", every_minutes=1) for n in range({SCHEDULES})]
"""

Eventually = Callable[..., None]


def history(stack: Stack, name: str) -> list[dict[str, Any]]:
    """The fires of a schedule, as the owner is told; newest first."""
    headers = {"Authorization": f"Bearer {stack.token('owner')}"}
    response = httpx.get(f"{stack.url}/api/schedules/{name}/history", headers=headers, timeout=60)
    fires: list[dict[str, Any]] = response.json()["data"]["fires"]
    return fires


def planned(stack: Stack, name: str) -> list[dict[str, Any]]:
    """Those that nobody triggered by hand."""
    return [fire for fire in history(stack, name) if not fire["manual"]]


@pytest.mark.usefixtures("stack")  # the next test waits for the same minute
def test_three_beats_of_which_two_are_killed_fire_once(
    start: Callable[..., Stack], tmp_path: Path, eventually: Eventually
) -> None:
    application = tmp_path / "application"
    (application / "actions").mkdir(parents=True)
    (application / "actions" / "__init__.py").write_text(ACTIONS)
    (application / "actions" / "schedules.py").write_text(DECLARED)
    stack = start(cwd=application)
    stack.wait_ready()
    with ExitStack() as others:
        beats = [others.enter_context(beat(stack, application)) for _ in range(2)]
        eventually(lambda: beats_seen(stack) == 3)
        boundary = (time.time() // 60 + 1) * 60
        for process in beats:
            at = boundary + random.uniform(0, 1)
            eventually(lambda at=at: time.time() >= at, within=A_MINUTE)
            process.kill()
        with stack.database() as database:
            due = {"plannedAt": datetime.fromtimestamp(boundary, UTC)}
            ended = {**due, "outcome": {"$ne": None}}
            eventually(lambda: database["_fires"].count_documents(ended) == SCHEDULES)
            fires = list(database["_fires"].find(due))
            starts = Counter(row["run"] for row in database["starts"].find())
    assert {fire["outcome"] for fire in fires} == {"succeeded"}
    assert len({fire["schedule"] for fire in fires}) == SCHEDULES
    assert {fire["_id"]: 1 for fire in fires}.items() <= starts.items()
    assert set(starts.values()) == {1}


def test_the_heartbeat_updates_its_record_each_minute(stack: Stack, eventually: Eventually) -> None:
    eventually(
        lambda: any(fire["outcome"] == "succeeded" for fire in planned(stack, "heartbeat")),
        within=A_MINUTE,
    )
    assert all(fire["plannedAt"].endswith(":00.000Z") for fire in planned(stack, "heartbeat"))
    with stack.database() as database:
        record = database["settings"].find_one({"_id": "global"})
    fires = history(stack, "heartbeat")  # read last: it knows of each run that wrote the record
    assert record is not None
    assert record["updatedBy"] == "owner"
    assert record["data"]["lastRun"] in [fire["runId"] for fire in fires]


def test_a_beat_two_hours_ahead_silences_no_schedule(
    stack: Stack, tmp_path: Path, program: Callable[..., str], eventually: Eventually
) -> None:
    """It says that its clock is off, and plans nothing ahead. What follows from that for the fires
    is tested with clocks that the test moves."""
    log = tmp_path / "log"
    ahead = (program("faketime"), "-f", "+2h")
    with stack.database() as database, beat(stack, Path.cwd(), *ahead, log=log):
        eventually(lambda: any(7190 < seconds < 7210 for seconds in beats_ahead(stack)))
        seen = [state["through"] for state in database["_schedules"].find()]
        eventually(lambda: [row["through"] for row in database["_schedules"].find()] != seen,
                   within=A_MINUTE)  # fmt: skip
        now = datetime.now(UTC)
        assert all(
            row["through"].replace(tzinfo=UTC) <= now for row in database["_schedules"].find()
        )
        assert database["_fires"].count_documents({"plannedAt": {"$gt": now}}) == 0
        told = subprocess.run(
            [sys.executable, "-m", "callboard.cli", "doctor"],
            env={**os.environ, **stack.announced["environment"]},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert "s ahead" in log.read_text()
    assert told.returncode == 1
    assert "FAIL  clocks    the clock of beat" in told.stdout


@contextmanager
def beat(
    stack: Stack, application: Path, *before: str, log: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """One more beat of the stack's application; ``before``: what it is started by."""
    with open(log or os.devnull, "wb") as out:
        process = subprocess.Popen(
            [*before, sys.executable, "-m", "celery", "-A", "worker", "beat"],
            cwd=application,
            env={**os.environ, **stack.announced["environment"]},
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=10)


def beats_ahead(stack: Stack) -> list[float]:
    """By how many seconds the clock of each beat is ahead, as it says."""
    with redis.Redis.from_url(stack.announced["environment"]["REDIS_URL"]) as broker:
        return [sign["ahead"] for sign in heartbeat.signs(broker, KEYS.beat).values()]


def beats_seen(stack: Stack) -> int:
    with redis.Redis.from_url(stack.announced["environment"]["REDIS_URL"]) as broker:
        return len(list(broker.scan_iter("callboard:beat:*")))
