"""Whoever can write Redis or MongoDB spoils what he writes on, and nothing beside it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
import redis
from ended_runs import SEALER, done, end, finish, forget_turn, work
from flask.testing import FlaskClient
from pymongo import MongoClient
from pymongo.database import Database

from callboard.connections.keys import Keys
from callboard.runs.history import RUNS
from callboard.runs.seal import Call, Sealer
from callboard.runs.store import Runs
from worker.archive.archiver import Archiver

KEYS = Keys()

NO_NUMBERS: list[Any] = [
    *(
        "",
        "many",
        "-1",
        "1e400",
        "nan",
        "inf",
        "0x10",
        "1.5",
        "9" * 15,
        "9" * 400,
        b"\xff\xfe",
        "\0",
    ),
]
NUMBERS = ("enqueued", "started", "ended", "attempt", "lost", "ttl")
SEALED = ("origin", "result", "seal", "error", "progress")

Client = Callable[..., FlaskClient]
Get = Callable[[str], Any]


def queue(runs: Runs, caller: str = "alice") -> str:
    call = Call(caller=caller)
    return runs.accept(str(uuid4()), work, call, max_queue=1000, result_ttl=60).run_id


@pytest.fixture
def client(api: Client, database: Database[dict[str, Any]]) -> FlaskClient:
    return api(CALLBOARD_METRICS="true")


@pytest.fixture
def get(client: FlaskClient, make_token: Callable[..., str]) -> Get:
    def get(path: str, sub: str = "owner") -> Any:
        return client.get(path, headers={"Authorization": f"Bearer {make_token(sub=sub)}"})

    return get


def rows(get: Get, sub: str = "owner") -> dict[str, dict[str, Any]]:
    response = get("/api/runs?limit=200", sub)
    assert response.status_code == 200, response.text
    return {row["runId"]: row for row in response.json["data"]["runs"]}


class Spoiled:
    """Records, each with one thing altered."""

    def __init__(self, runs: Runs, client: redis.Redis) -> None:
        self.runs, self.redis = runs, client

    def all(self) -> Iterator[str]:
        for field in NUMBERS:
            for value in NO_NUMBERS:
                yield self._with(**{field: value})
        other = self.redis.hgetall(f"callboard:run:{end(self.runs)}")
        for field in SEALED:
            for value in ("", b"\x01", b"x" * 100, other.get(field.encode(), b"\x01" * 60)):
                yield self._with(**{field: value})
        for field in (*NUMBERS, *SEALED, "action", "status", "caller"):
            yield self._with(field)
        for value in ("", "done", b"\xff", "running"):
            yield self._with(status=value)
        for value in ("", "other", b"\xff\xfe"):
            yield self._with(action=value)
        yield from self.of_what_it_keeps()
        yield self._of_another_type()

    def of_what_it_keeps(self) -> Iterator[str]:
        """Its attempts, steps and waits."""
        for name in ("v", "steps", "steps_bytes", "spent", "waited", "parked", "due", "session"):
            for value in NO_NUMBERS:
                if name != "v" or value != "9" * 15:  # that one is of a newer version
                    yield self._with(**{name: value})
        for name in (b"step:", b"attempt:", b"report:", b"signal:"):
            for rest in (b"1", b"", b"x", b"\0", b"\xff", b"9" * 5000):
                yield self._with(**{os.fsdecode(name + rest): b"x" * 100})
        for name in ("report:1", "holder"):
            yield self._with(**{name: b"x" * 17_000_000})

    def _with(self, *gone: str, **altered: Any) -> str:
        run_id = end(self.runs)
        key = f"callboard:run:{run_id}"
        if gone:
            self.redis.hdel(key, *gone)
        if altered:
            self.redis.hset(key, mapping={os.fsencode(name): altered[name] for name in altered})
        return run_id

    def _of_another_type(self) -> str:
        run_id = end(self.runs)
        self.redis.delete(f"callboard:run:{run_id}")
        self.redis.lpush(f"callboard:run:{run_id}", "no record")
        return run_id


@pytest.fixture
def spoiled(runs: Runs, redis_client: redis.Redis) -> list[str]:
    return list(Spoiled(runs, redis_client).all())


def test_in_a_list_it_costs_its_own_row(
    get: Get, runs: Runs, spoiled: list[str], redis_client: redis.Redis
) -> None:
    redis_client.zadd(KEYS.live, {b"\xff\xfe": 7, "no run": 8, "far": float("inf"), "old": -5.5})
    good = [end(runs), queue(runs)]
    found = rows(get)
    assert {found[run_id]["status"] for run_id in good} == {"succeeded", "queued"}
    assert all(found[run_id]["error"] is None for run_id in good)
    for sub in ("owner", "alice"):
        after, seen = "", set()
        while after is not None:
            page = get(f"/api/runs?limit=20{after and '&after=' + after}", sub)
            assert page.status_code == 200
            seen |= {row["runId"] for row in page.json["data"]["runs"]}
            after = page.json["data"]["after"]
        assert seen >= set(good)
    assert len(spoiled) > 100


def test_by_its_id_it_is_answered_with_a_reason(get: Get, spoiled: list[str]) -> None:
    for run_id in spoiled:
        for part in ("", "/detail"):
            response = get(f"/api/runs/{run_id}{part}")
            assert response.status_code in (200, 404, 410), response.text
            if response.status_code == 410:
                assert "SECRET_KEY" in response.json["error"]


def test_the_history_takes_all_others(
    runs: Runs,
    archiver: Archiver,
    database: Database[dict[str, Any]],
    spoiled: list[str],
    redis_client: redis.Redis,
) -> None:
    redis_client.lpush(
        KEYS.ended, "", " ", "\0", b"\xff\xfe 7", "a b c", "x" * 100_000, "run 1e400"
    )
    redis_client.rpush(KEYS.ended, f"{spoiled[0]} nonsense", f"{uuid4()} {'9' * 400}")
    good = [end(runs) for _ in range(3)]
    for _ in range(10):
        forget_turn(redis_client)
        archiver.turn()
    assert not redis_client.exists(KEYS.ended)
    assert {row["_id"] for row in database[RUNS].find()} >= set(good)
    assert all(redis_client.ttl(f"callboard:run:{run_id}") > 0 for run_id in good)


def test_counters_cost_their_own_line(get: Get, runs: Runs, redis_client: redis.Redis) -> None:
    for number, value in enumerate(NO_NUMBERS):
        redis_client.hset(KEYS.counters, f"runs:spoiled{number}:succeeded", value)
    redis_client.hset(
        KEYS.counters, mapping={b"\xff\xfe": 1, "": 1, ":": 1, "run:work:nonsense": 1}
    )
    redis_client.hset(KEYS.counters, "lost:work", "nonsense")
    runs.count("refused")
    finish(runs, queue(runs))
    told = get("/metrics")
    assert told.status_code == 200
    assert "callboard_refused_messages_total 1.0" in told.text
    assert "callboard_broker_up 1.0" in told.text


@pytest.mark.parametrize("key", [KEYS.counters, KEYS.ended, "callboard"])
def test_a_key_of_another_type_costs_its_own_line(
    get: Get, redis_client: redis.Redis, key: str
) -> None:
    redis_client.delete(key)
    redis_client.set(key, "nonsense")
    told = get("/metrics")
    assert told.status_code == 200
    assert "callboard_broker_up 1.0" in told.text


def test_a_run_in_anothers_list_is_not_shown_there(
    get: Get, runs: Runs, redis_client: redis.Redis
) -> None:
    mine, theirs = queue(runs, "mallory"), queue(runs, "bob")
    [my_list] = [
        key for key in redis_client.scan_iter(f"{KEYS.live}:*") if redis_client.zscore(key, mine)
    ]
    redis_client.zadd(my_list, {theirs: 1})
    assert rows(get, "mallory").keys() == {mine}


SPOILED_DOCUMENTS: list[dict[str, Any]] = [
    *({field: value} for field in ("action", "status", "createdBy", "startedAt", "completedAt")
      for value in (7, [], {"$gt": ""}, "text", None)),
    *({field: value} for field in ("attempts", "lost", "error", "result", "progress", "params")
      for value in (7, [], {"a": 1}, "text", b"", b"\x01" * 100)),
]  # fmt: skip


def test_in_the_history_too(
    get: Get,
    runs: Runs,
    archiver: Archiver,
    client: FlaskClient,
    database: Database[dict[str, Any]],
) -> None:
    good = [end(runs), end(runs)]
    spoiled = [end(runs) for _ in SPOILED_DOCUMENTS]
    archiver.turn()
    collection = database[RUNS]
    for run_id, change in zip(spoiled, SPOILED_DOCUMENTS, strict=True):
        collection.update_one({"_id": run_id}, {"$set": change})
    collection.insert_many([{"_id": 7}, {"_id": "x", "enqueuedAt": "now"}, {"_id": "y"}])
    for run_id in (*good, *spoiled):
        runs_key = f"callboard:run:{run_id}"
        runs._redis.delete(runs_key)
    assert rows(get).keys() >= set(good)
    for run_id in spoiled:
        assert get(f"/api/runs/{run_id}").status_code in (200, 410)


class TestRotatedKeys:
    """What no key of SECRET_KEY opens any more."""

    @pytest.fixture
    def old(self, redis_client: redis.Redis) -> Runs:
        return Runs(redis_client, Sealer(("o" * 40,)), KEYS)

    def test_a_run_says_so(self, get: Get, old: Runs) -> None:
        for run_id in (end(old), queue(old)):
            for sub in ("owner", "alice"):
                response = get(f"/api/runs/{run_id}", sub)
                assert response.status_code == 410
                assert "SECRET_KEY" in response.json["error"]
            assert "SECRET_KEY" in rows(get)[run_id]["error"]

    def test_a_result_in_the_history_says_so(
        self, get: Get, old: Runs, client: FlaskClient, make_archiver: Callable[..., Archiver],
        redis_client: redis.Redis, database: Database[dict[str, Any]],
        database_client: MongoClient[dict[str, Any]],
    ) -> None:  # fmt: skip
        from callboard.runs.history import History

        run_id = end(old)
        make_archiver(History(lambda: database, Sealer(("o" * 40,)))).turn()
        for _ in range(2):  # with its record, and without
            told = get(f"/api/runs/{run_id}", "alice")
            assert told.status_code == 200
            assert told.json["data"]["status"] == "succeeded"
            assert "SECRET_KEY" in told.json["data"]["result"]["error"]
            redis_client.delete(f"callboard:run:{run_id}")

    def test_a_key_and_a_retry_say_so(
        self, client: FlaskClient, old: Runs, redis_client: redis.Redis, get: Get,
        make_token: Callable[..., str],
    ) -> None:  # fmt: skip
        def post(path: str, sub: str) -> Any:
            headers = {"Authorization": f"Bearer {make_token(sub=sub)}", "Idempotency-Key": "key"}
            return client.post(path, headers={**headers, "Prefer": "wait=0"}, json={})

        run_id = post("/api/actions/work", "alice").json["runId"]
        key = f"callboard:run:{run_id}"
        taken_over = redis_client.hgetall(f"callboard:run:{end(old)}")
        redis_client.hset(key, mapping={f: taken_over[f] for f in (b"seal", b"origin", b"result")})
        for path, sub in (("/api/actions/work", "alice"), (f"/api/runs/{run_id}/retry", "owner")):
            response = post(path, sub)
            assert response.status_code == 410
            assert "SECRET_KEY" in response.json["error"]


class TestParams:
    """They leave with the run, and the token with them."""

    def test_what_a_run_was_called_with_leaves_redis(
        self, runs: Runs, archiver: Archiver, redis_client: redis.Redis
    ) -> None:
        calls = 20
        for number in range(calls):
            call = Call(caller="alice", params={"text": "x" * 1_000_000}, jwt="token")
            options = {"idempotency": (f"key {number}", "digest")}
            runs.accept(str(uuid4()), work, call, max_queue=99, result_ttl=60, **options)
        run_ids = [text.decode() for text in redis_client.zrange(KEYS.live, 0, -1)]
        for run_id in run_ids:
            finish(runs, run_id)
        redis_client.delete("callboard")
        while redis_client.llen(KEYS.ended):
            forget_turn(redis_client)
            archiver.turn()
        kept = sum(redis_client.memory_usage(key) or 0 for key in redis_client.scan_iter())
        assert kept < calls * 3_000
        assert runs.accept(
            str(uuid4()), work, Call(caller="alice"), max_queue=99, result_ttl=60,
            idempotency=("key 0", "digest"),
        ).joined  # fmt: skip
        record = runs.read(run_ids[0])
        assert record is not None
        assert (record.outcome, record.caller, record.call) == (done(run_ids[0]), "alice", None)

    def test_the_history_keeps_them_sealed_without_the_token(
        self, runs: Runs, make_archiver: Callable[..., Archiver],
        database: Database[dict[str, Any]],
    ) -> None:  # fmt: skip
        from callboard.runs.history import History

        run_id = end(runs)
        make_archiver(History(lambda: database, SEALER, keep_params=True)).turn()
        [row] = database[RUNS].find()
        assert b"canary" not in row["params"]
        assert SEALER.open("params", run_id, "work", row["params"]) == b'{"canary":"canary-param"}'

    def test_or_does_not(
        self, runs: Runs, archiver: Archiver, database: Database[dict[str, Any]]
    ) -> None:
        end(runs)
        archiver.turn()
        [row] = database[RUNS].find()
        assert "params" not in row
