"""Two applications on one Redis, each in a namespace of its own: neither sees the other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import redis
from flask.testing import FlaskClient

from callboard.connections import heartbeat
from callboard.connections.keys import Keys
from callboard.runs.counters import read_counts
from callboard.stack.ports import free_port
from callboard.testing.servers import with_database

SHOP, DEFAULT = Keys("shop"), Keys()

Eventually = Callable[..., None]
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def of(variables: dict[str, str], mongodb_uri: str) -> Callable[[Keys], dict[str, str]]:
    """The settings of the application of a namespace; each has its own key and database."""

    def settings(keys: Keys) -> dict[str, str]:
        own = {} if keys.namespace == DEFAULT.namespace else {"SECRET_KEY": "s" * 40}
        return {
            **variables,
            "MONGODB_URI": with_database(mongodb_uri, f"{keys.namespace}_{os.getpid()}"),
            "CALLBOARD_NAMESPACE": keys.namespace,
            "CALLBOARD_ACTIONS": "ended_runs",
            "PYTHONPATH": str(Path(__file__).parent),
            **own,
        }

    return settings


@pytest.fixture
def start(of: Callable[[Keys], dict[str, str]], tmp_path: Path) -> Iterator[Start]:
    """Start a program of Celery's for the application: ``start(keys, "worker", "-c", "1")``."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(keys: Keys, *arguments: str, **variables: str) -> subprocess.Popen[bytes]:
        with (tmp_path / f"{keys.namespace}-{arguments[0]}.log").open("w") as log:
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "celery", "-A", "worker", *arguments],
                    env={**os.environ, **of(keys), **variables},
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture
def flower(start: Start) -> Iterator[httpx.Client]:
    """The shop's."""
    port = free_port()
    flags = ("--address=127.0.0.1", f"--port={port}")
    start(SHOP, "flower", *flags, FLOWER_UNAUTHENTICATED_API="true")
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        yield client


def test_each_runs_its_own_calls_and_sees_nothing_of_the_other(
    start: Start,
    flower: httpx.Client,
    of: Callable[[Keys], dict[str, str]],
    api: Callable[..., FlaskClient],
    make_token: Callable[..., str],
    redis_client: redis.Redis,
    eventually: Eventually,
) -> None:
    bearer = {"Authorization": f"Bearer {make_token()}"}
    programs = {
        keys: start(keys, "worker", "-c", "1", "-n", f"{keys.namespace}@test")
        for keys in (SHOP, DEFAULT)
    }
    for keys in (SHOP, DEFAULT):
        name = f"{keys.namespace}@test"
        eventually(lambda: heartbeat.seen(redis_client, keys.worker) == [name])  # noqa: B023

    eventually(lambda: answers(flower, "/healthcheck"))
    eventually(lambda: list(flower.get("/api/workers?refresh=1").json()) == ["shop@test"])

    ran = {}
    for keys, calls in ((SHOP, 3), (DEFAULT, 5)):
        client = api(**of(keys), CALLBOARD_RATE_LIMIT="100/minute", CALLBOARD_METRICS="true")
        for number in range(calls):
            headers = {**bearer, "Idempotency-Key": str(number), "Prefer": "wait=20"}
            answer = client.post("/api/actions/work", headers=headers)
            assert answer.status_code == 200, answer.text
            ran.setdefault(keys, set()).add(answer.headers["Run-Id"])
        eventually(lambda: counted(redis_client, keys) == calls)  # noqa: B023
        metrics = client.get("/metrics").text
        assert f'callboard_runs_total{{action="work",status="succeeded"}} {calls}.0' in metrics
    assert len(ran[SHOP] | ran[DEFAULT]) == 8

    eventually(lambda: flower.get("/api/tasks").json().keys() == ran[SHOP])
    for keys in (SHOP, DEFAULT):
        assert redis_client.hget(keys.counters, "refused") is None
        assert pinged(of(keys)) == {f"{keys.namespace}@test"}
        programs[keys].kill()
    api(**of(SHOP)).post("/api/actions/work", headers={**bearer, "Prefer": "respond-async"})
    assert redis_client.llen("shop:celery:callboard") == 1
    assert redis_client.llen("callboard") == 0
    [queue] = flower.get("/api/queues/length").json()["active_queues"]
    assert queue == {"name": "callboard", "messages": 1}


def test_all_that_an_application_keeps_begins_with_its_namespace(
    start: Start,
    of: Callable[[Keys], dict[str, str]],
    api: Callable[..., FlaskClient],
    make_token: Callable[..., str],
    redis_client: redis.Redis,
    eventually: Eventually,
) -> None:
    start(SHOP, "worker", "-c", "1", "-n", "shop@test")
    start(SHOP, "beat")
    eventually(lambda: heartbeat.seen(redis_client, SHOP.worker))
    eventually(lambda: heartbeat.seen(redis_client, SHOP.beat))
    headers = {"Authorization": f"Bearer {make_token()}", "Idempotency-Key": "k"}
    client = api(**of(SHOP), CALLBOARD_RATE_LIMIT="100/minute")
    assert client.post("/api/actions/work", headers=headers).status_code == 200
    eventually(lambda: counted(redis_client, SHOP) == 1)
    keys = {key.decode() for key in redis_client.scan_iter()}
    assert {key for key in keys if not key.startswith("shop:")} == set()
    kinds = {key.split(":")[1] for key in keys}
    assert kinds > {"beat", "celery", "counters", "archiver", "idempotency", "rate", "run"}
    channels = [channel.decode() for channel in redis_client.pubsub_channels()]
    assert [channel.split(":")[:2] for channel in channels] == [["shop", "reply"]]


def pinged(environment: dict[str, str]) -> set[str]:
    """The workers that answer when the application asks all of them."""
    command = [*("-m", "celery", "-A", "worker", "inspect", "ping"), "--json", "--timeout", "2"]
    asked = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(json.loads(asked.stdout.splitlines()[-1]))


def answers(client: httpx.Client, path: str) -> bool:
    try:
        return client.get(path).status_code == 200
    except httpx.TransportError:
        return False


def counted(client: redis.Redis, keys: Keys) -> int:
    """How many runs the application's history has taken."""
    return sum(read_counts(client, keys, []).runs.values())
