"""Two applications in one namespace: both are told, with names and the next step."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import redis
from click.testing import CliRunner
from scheduled_app import ScheduledApp
from structlog.testing import capture_logs

from callboard.applications import (
    ALIVE_SECONDS,
    ApplicationHeartbeat,
    Process,
    foreign,
    processes,
)
from callboard.cli.doctor import doctor
from callboard.connections import heartbeat
from callboard.connections.keys import Keys
from callboard.settings import Settings

KEYS = Keys()
LONG = 600  # seconds: longer than any command takes


def process(name: str = "worker w@here", **changes: Any) -> Process:
    same = {"name": name, "marks": ["a"], "database": "shop", "actions": "actions"}
    return Process(**{**same, **changes})


def show(client: redis.Redis, *shown: Process, keys: Keys = KEYS) -> None:
    for one in shown:
        ApplicationHeartbeat(client, keys, one).turn()


def test_processes_of_one_application_are_no_strangers(redis_client: redis.Redis) -> None:
    beat = process("beat b", marks=["new", "a"])  # the key is being rotated
    with capture_logs() as logs:
        show(redis_client, process(), beat)
    assert {one.name for one in processes(redis_client, KEYS)} == {"worker w@here", "beat b"}
    assert foreign(process(), processes(redis_client, KEYS)) == []
    assert logs == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"marks": ["b"]}, "another SECRET_KEY"),
        ({"database": "staging"}, "database 'staging'"),
        ({"actions": "other"}, "actions 'other'"),
    ],
)
def test_another_application_is_told_to_both_once(
    redis_client: redis.Redis, changes: dict[str, Any], told: str
) -> None:
    ours = ApplicationHeartbeat(redis_client, KEYS, process())
    theirs = ApplicationHeartbeat(redis_client, KEYS, process("worker x@there", **changes))
    ours.turn()
    with capture_logs() as logs:
        for _ in range(3):
            theirs.turn()
            ours.turn()
    first, second = (line["event"] for line in logs)
    assert "worker w@here (" in first
    assert f"worker x@there ({told})" in second
    assert all("Give each a CALLBOARD_NAMESPACE" in text for text in (first, second))


def test_another_namespace_is_none_of_its_business(redis_client: redis.Redis) -> None:
    show(redis_client, process(marks=["b"]), keys=Keys("shop"))
    assert processes(redis_client, KEYS) == []


def test_who_left_or_died_is_there_no_more(redis_client: redis.Redis) -> None:
    shown, stopped = ApplicationHeartbeat(redis_client, KEYS, process()), threading.Event()
    died = json.dumps(asdict(process("worker died@here")))
    redis_client.zadd(KEYS.applications, {died: redis_client.time()[0] - 2 * ALIVE_SECONDS})
    assert processes(redis_client, KEYS) == []
    shown.turn()
    assert processes(redis_client, KEYS) == [process()]
    assert redis_client.zcard(KEYS.applications) == 1
    stopped.set()
    shown.run(stopped)
    assert redis_client.zcard(KEYS.applications) == 0


def test_what_no_process_wrote_is_passed_over(redis_client: redis.Redis) -> None:
    far = 9e12
    row = {"name": 1, "marks": [], "database": "d", "actions": "a"}
    rows = [b"\xff", "[1]", "{}", "null", "[" * 5000, json.dumps(row), '{"name": {}}']
    redis_client.zadd(KEYS.applications, dict.fromkeys(rows, far))
    assert processes(redis_client, KEYS) == []


def told_by_doctor() -> dict[str, str]:
    """What it says, by part."""
    output = CliRunner().invoke(doctor, ["--data-dir", str(Path("/nonexistent"))]).output
    lines = (line.split(maxsplit=2) for line in output.splitlines())
    return {part: f"{state} {text}" for state, part, text in lines}


def stays(redis_client: redis.Redis, process: Process) -> None:
    """Show it for as long as doctor may take on a busy machine."""
    row = json.dumps(asdict(process))
    redis_client.zadd(KEYS.applications, {row: redis_client.time()[0] + LONG})


def test_doctor_fails_and_counts_only_its_own(app: ScheduledApp, redis_client: redis.Redis) -> None:
    settings: Settings = app.settings
    ours = Process.of(settings, "beat ours")
    stays(redis_client, ours)
    heartbeat.show(redis_client, f"{KEYS.beat}ours", "{}", LONG)
    told = told_by_doctor()
    assert told["namespace"] == "ok callboard, 1 processes, all of this application"
    assert told["beat"] == "ok alive"

    theirs = replace(ours, name="beat theirs", marks=["another"])
    redis_client.zrem(KEYS.applications, *redis_client.zrange(KEYS.applications, 0, -1))
    heartbeat.forget(redis_client, f"{KEYS.beat}ours")
    heartbeat.show(redis_client, f"{KEYS.beat}theirs", "{}", LONG)
    stays(redis_client, theirs)
    told = told_by_doctor()
    assert told["namespace"].startswith("FAIL Another application uses the namespace 'callboard'")
    assert "beat theirs (another SECRET_KEY)" in told["namespace"]
    assert told["beat"].startswith("FAIL no beat is alive")
    assert settings.secret_keys[0] not in repr(redis_client.zrange(KEYS.applications, 0, -1))
