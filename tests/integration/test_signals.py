"""Signals: what a run keeps of them, and what wakes it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
import redis
from ended_runs import SEALER, finish, work

from callboard.connections.keys import Keys
from callboard.errors import NewerFormat, SealError
from callboard.runs import signals
from callboard.runs.format import FORMAT
from callboard.runs.seal import Call
from callboard.runs.signals import open_signal, seal_signal
from callboard.runs.store import Runs

KEYS = Keys()
QUEUE = KEYS.queue("callboard")
Start = Callable[[], str]


@pytest.fixture
def start(runs: Runs) -> Start:
    def start() -> str:
        run_id = str(uuid4())
        runs.accept(run_id, work, Call(caller="alice"), max_queue=100, result_ttl=60)
        return run_id

    return start


@pytest.fixture
def send(runs: Runs) -> Callable[..., str]:
    """``send(run_id, "approve", value)``: what came of it."""

    def send(run_id: str, name: str = "approve", value: Any = True) -> str:
        return runs.signal(run_id, "work", name, value)

    return send


def park(client: redis.Redis, run_id: str, **waits: Any) -> None:
    """As a run that waits is kept."""
    client.hset(KEYS.run(run_id), mapping={"status": "waiting", "waiting": json.dumps(waits)})
    client.zrem(KEYS.open, run_id)
    client.zadd(KEYS.due, {run_id: 10**14})
    client.delete(QUEUE)


def kept(client: redis.Redis, run_id: str, name: str = "approve") -> Any:
    sealed = client.hget(KEYS.run(run_id), f"signal:{name}")
    assert isinstance(sealed, bytes)
    return open_signal(SEALER, run_id, "work", name, sealed)


@pytest.mark.parametrize("value", [None, True, 1, "text", [], {"by": "bob", "deep": [[1]]}])
def test_the_first_one_counts(
    start: Start, send: Callable[..., str], redis_client: redis.Redis, value: Any
) -> None:
    run_id = start()
    assert send(run_id, value=value) == "kept"
    assert send(run_id, value="later") == "known"
    assert kept(redis_client, run_id) == value
    assert send(run_id, "refuse", "other") == "kept"
    assert (kept(redis_client, run_id), kept(redis_client, run_id, "refuse")) == (value, "other")


def test_what_waits_for_it_is_queued_at_once(
    start: Start, send: Callable[..., str], redis_client: redis.Redis
) -> None:
    run_id = start()
    park(redis_client, run_id, kind="signal", name="approve")
    assert send(run_id, "other") == "kept"
    assert redis_client.llen(QUEUE) == 0
    assert send(run_id) == "kept"
    assert redis_client.llen(QUEUE) == 1
    assert redis_client.hget(KEYS.run(run_id), "status") == b"queued"
    assert redis_client.zscore(KEYS.due, run_id) is None
    assert redis_client.zscore(KEYS.open, run_id) is not None
    assert send(run_id) == "known"
    assert redis_client.llen(QUEUE) == 1


@pytest.mark.parametrize("waits", ['{"kind": "time", "name": "approve"}', "no JSON", "[]", ""])
def test_what_waits_for_something_else_keeps_it(
    start: Start, send: Callable[..., str], redis_client: redis.Redis, waits: str
) -> None:
    run_id = start()
    park(redis_client, run_id)
    redis_client.hset(KEYS.run(run_id), "waiting", waits)
    assert send(run_id) == "kept"
    assert redis_client.hget(KEYS.run(run_id), "status") == b"waiting"
    assert redis_client.llen(QUEUE) == 0


def test_what_has_ended_or_never_was_takes_none(
    start: Start, send: Callable[..., str], runs: Runs, redis_client: redis.Redis
) -> None:
    run_id = start()
    finish(runs, run_id)
    assert send(run_id) == "ended"
    assert redis_client.hexists(KEYS.run(run_id), "signal:approve") is False
    assert send(str(uuid4())) == "ended"


def test_a_run_keeps_a_bounded_number_of_them(
    start: Start, send: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("callboard.runs.commands.MAX_SIGNALS", 2)
    run_id = start()
    assert [send(run_id, name) for name in ("a", "b", "c", "a")] == [
        "kept",
        "kept",
        "full",
        "known",
    ]


def test_a_run_keeps_a_bounded_size_of_them(start: Start, send: Callable[..., str]) -> None:
    run_id = start()
    half = "x" * (signals.MAX_SIGNALS_BYTES // 2)
    assert [send(run_id, name, half) for name in ("a", "b")] == ["kept", "full"]


def test_a_record_of_a_newer_version_is_left(
    start: Start, send: Callable[..., str], redis_client: redis.Redis
) -> None:
    run_id = start()
    redis_client.hset(KEYS.run(run_id), "v", FORMAT + 1)
    with pytest.raises(NewerFormat):
        send(run_id)


def test_nobody_can_make_one_signal_into_another(start: Start) -> None:
    run_id = start()
    sealed = seal_signal(SEALER, run_id, "work", "refuse", True)
    assert open_signal(SEALER, run_id, "work", "refuse", sealed) is True
    for other in ({"name": "approve"}, {"run_id": str(uuid4())}, {"action": "strict"}):
        where = {"run_id": run_id, "action": "work", "name": "refuse", **other}
        with pytest.raises(SealError):
            open_signal(SEALER, **where, sealed=sealed)
