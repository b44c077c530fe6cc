"""A key that all runs share is of another type: it is told which, and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import redis
from ended_runs import end, work
from flask.testing import FlaskClient
from structlog.testing import capture_logs

from callboard.cli.doctor import _keys
from callboard.connections import redis as connection
from callboard.connections.keys import Keys
from callboard.connections.spoiled import spoiled
from callboard.errors import BrokerUnavailable, ServiceUnavailable
from callboard.runs.seal import Call
from callboard.runs.store import Runs
from worker.archive.archiver import Archiver

KEYS = Keys()
EVENT = "a key in Redis is of another type than Callboard gave it"


@pytest.fixture
def told(
    monkeypatch: pytest.MonkeyPatch,
    client: FlaskClient,  # which configures the log
) -> Iterator[Callable[[], list[str]]]:
    """By what a spoiled key was used, as the log says it."""
    monkeypatch.setattr(connection, "_logged_until", {})
    with capture_logs() as lines:
        yield lambda: [line["used_by"] for line in lines if line["event"] == EVENT]


def spoil(client: redis.Redis, key: str) -> None:
    client.delete(key)
    client.set(key, "spoiled")


@pytest.mark.parametrize("key", [KEYS.open, KEYS.live])
def test_a_call_is_refused_and_the_log_says_why_once(
    client: FlaskClient,
    make_token: Callable[..., str],
    redis_client: redis.Redis,
    told: Callable[[], list[str]],
    key: str,
) -> None:
    headers = {"Authorization": f"Bearer {make_token()}", "Prefer": "respond-async"}
    spoil(redis_client, key)
    answers = [client.post("/api/actions/work", headers=headers) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [503] * 3
    assert told() == ["accept"]
    redis_client.rename(key, "away")
    assert client.post("/api/actions/work", headers=headers).status_code == 202


def test_a_list_is_refused_and_the_log_names_the_key(
    client: FlaskClient,
    make_token: Callable[..., str],
    redis_client: redis.Redis,
    told: Callable[[], list[str]],
) -> None:
    spoil(redis_client, KEYS.live)
    headers = {"Authorization": f"Bearer {make_token('owner')}"}
    assert client.get("/api/runs", headers=headers).status_code == 503
    assert told() == [KEYS.live]


def test_the_archiver_waits_and_the_log_names_the_key(
    runs: Runs, archiver: Archiver, redis_client: redis.Redis, told: Callable[[], list[str]]
) -> None:
    end(runs)
    redis_client.rename(KEYS.ended, "away")
    spoil(redis_client, KEYS.ended)
    for _ in range(2):
        with pytest.raises(BrokerUnavailable):
            archiver.turn()
    assert told() == [KEYS.ended]
    redis_client.rename("away", KEYS.ended)
    assert archiver.turn() == 1


@pytest.mark.parametrize(
    "key", [KEYS.open, KEYS.live, KEYS.ended, KEYS.counters, "callboard", "_kombu.binding.celeryev"]
)
@pytest.mark.usefixtures("client")  # whose environment doctor reads
def test_doctor_names_it(redis_client: redis.Redis, key: str) -> None:
    assert _keys() == "are of their types"
    spoil(redis_client, key)
    with pytest.raises(ServiceUnavailable, match=f"{key} is a string, not a .*RENAME"):
        _keys()


def test_the_types_are_those_that_are_written(runs: Runs, redis_client: redis.Redis) -> None:
    end(runs)
    runs.accept("queued", work, Call(caller="alice"), max_queue=99, result_ttl=60)
    runs.count("refused")
    runs.sweep()
    assert redis_client.exists(KEYS.open, KEYS.live, KEYS.ended, KEYS.counters, "callboard") == 5
    assert spoiled(redis_client, KEYS, ["callboard"]) == []
