"""``POST /api/batch``: many calls, each as one by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis
from flask.testing import FlaskClient
from pymongo.database import Database

from callboard.connections.keys import Keys
from callboard.runs.outbox import OUTBOX
from callboard.runs.store import Runs
from callboard.stack.ports import free_port

Batch = Callable[..., Any]
KEYS = Keys()
MANY = {"CALLBOARD_RATE_LIMIT": "3/minute; 100/hour"}


@pytest.fixture
def batch(api: Callable[..., FlaskClient], make_token: Callable[..., str]) -> Batch:
    """``batch([{"action": "work"}], sub="alice")``: the response."""
    clients: list[FlaskClient] = []

    def batch(calls: Any, sub: str | None = "alice", **settings: str) -> Any:
        if not clients:
            clients.append(api(**settings))
        headers = {"Authorization": f"Bearer {make_token(sub)}"} if sub else {}
        body = {"calls": calls} if isinstance(calls, list) else calls
        return clients[0].post("/api/batch", json=body, headers=headers)

    return batch


def answers(response: Any) -> list[Any]:
    assert response.status_code == 202, response.get_json()
    data: list[Any] = response.get_json()["data"]
    return data


def statuses(response: Any) -> list[int]:
    return [answer.get("status", 202) for answer in answers(response)]


def test_each_call_is_a_run_of_the_caller(batch: Batch, runs: Runs) -> None:
    found = answers(batch([{"action": "work", "params": {"n": n}} for n in range(3)]))
    records = [runs.read(answer["runId"]) for answer in found]
    made = [record.call for record in records if record and record.call]
    assert [call.params["n"] for call in made] == [0, 1, 2]
    assert {call.caller for call in made} == {"alice"}
    assert all(call.jwt for call in made)
    assert {record.status for record in records if record} == {"queued"}


def test_one_refused_call_stops_no_other(batch: Batch, redis_client: redis.Redis) -> None:
    deep: dict[str, Any] = {}
    for _ in range(62):
        deep = {"a": deep}
    calls: list[Any] = [
        {"action": "work", "params": {}},
        {"action": "wrok"},
        {"action": "hidden"},
        {"action": "strict", "params": {"name": 1}},
        {"action": "work", "params": []},
        {"action": "work", "params": None},
        {"action": 5},
        {"params": {}},
        {"action": "work", "when": 1},
        {"action": "work", "delay": "1"},
        {"action": "work", "key": ""},
        {"action": "work", "key": 7},
        [],
        None,
        {"action": "work", "params": deep, "key": None, "delay": None},
    ]
    response = batch(calls)
    assert statuses(response) == [202, 404, 404, 422, *[400] * 10, 202]
    found = answers(response)
    assert found[1]["error"] == "Unknown action 'wrok'. Did you mean 'work'?"
    assert found[2]["error"].startswith("Unknown action 'hidden'")
    assert found[3]["issues"][0]["path"] == "name"
    codes = ["unknown_action", "unknown_action", "invalid_params", *["bad_request"] * 10]
    assert [answer.get("code") for answer in found] == [None, *codes, None]
    assert "'when'" in found[8]["error"]
    assert redis_client.llen(KEYS.queue("callboard")) == 2


def test_an_anonymous_caller_calls_what_is_for_everybody(batch: Batch) -> None:
    calls = [{"action": "open"}, {"action": "work"}, {"action": "nope"}, {"action": "hidden"}]
    assert statuses(batch([*calls, {"action": "open", "key": "k"}], sub=None)) == [
        *(202, 401, 401, 401, 400)
    ]


def test_a_bad_token_is_refused_as_a_whole(batch: Batch, api: Any) -> None:
    response = api().post("/api/batch", json={}, headers={"Authorization": "Bearer x"})
    assert response.status_code == 401


def test_a_key_is_one_run(batch: Batch) -> None:
    call = {"action": "work", "params": {"n": 1}, "key": "k"}
    first, second, other = answers(batch([call, call, {**call, "params": {"n": 2}}]))
    assert first == second
    assert other["status"] == 422
    assert answers(batch([call])) == [first]


def test_a_delay(batch: Batch, runs: Runs, database: Database[Any]) -> None:
    found = answers(batch([{"action": "work", "delay": delay} for delay in (0, 60, 7200)]))
    records = [runs.read(answer["runId"]) for answer in found]
    assert [record and record.status for record in records] == ["queued", "waiting", "waiting"]
    assert [row["_id"] for row in database[OUTBOX].find()] == [found[2]["runId"]]


def test_without_the_database_only_what_is_due_much_later_is_refused(batch: Batch) -> None:
    away = f"mongodb://127.0.0.1:{free_port()}/x?serverSelectionTimeoutMS=50"
    calls = [{"action": "work", "delay": delay} for delay in (7200, 0)]
    assert statuses(batch(calls, MONGODB_URI=away)) == [503, 202]


def test_without_redis_only_what_is_due_much_later_is_accepted(
    batch: Batch, database: Database[Any]
) -> None:
    calls = [{"action": "work", "delay": delay} for delay in (7200, 0)]
    found = batch(calls, REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")
    assert statuses(found) == [202, 503]
    assert [row["_id"] for row in database[OUTBOX].find()] == [answers(found)[0]["runId"]]


def test_a_full_queue_refuses_what_is_over(batch: Batch) -> None:
    calls = [*[{"action": "work"}] * 3, {"action": "work", "delay": 5}]
    assert statuses(batch(calls, CALLBOARD_MAX_QUEUE="2")) == [202, 202, 503, 202]


class TestRateLimit:
    def test_it_counts_each_call(self, batch: Batch) -> None:
        calls = [{"action": "nope"}, {"action": "work"}, {"action": "strict"}]
        assert statuses(batch(calls, **MANY)) == [404, 202, 422]
        response = batch([*calls, {"action": "work"}])
        assert statuses(response) == [404, 202, 429, 429]
        assert "3 per 1 minute" in answers(response)[2]["error"]
        assert statuses(batch([{"action": "work"}])) == [429]
        assert statuses(batch([{"action": "work"}], sub="bob")) == [202]

    def test_more_than_the_limit_at_once(self, batch: Batch) -> None:
        assert statuses(batch([{"action": "work"}] * 5, **MANY)) == [202, 202, 202, 429, 429]


class TestTheBody:
    @pytest.mark.parametrize(
        "body",
        [
            {}, {"calls": {}}, {"calls": None}, {"calls": []}, {"calls": [{}], "more": 1},
            {"calls": [{"action": "work"}] * 1001},
        ],
    )  # fmt: skip
    def test_400(self, batch: Batch, body: Any, redis_client: redis.Redis) -> None:
        response = batch(body)
        assert response.status_code == 400
        assert "calls" in response.get_json()["error"]
        assert redis_client.llen(KEYS.queue("callboard")) == 0

    def test_it_has_the_size_of_a_call_at_most(self, batch: Batch) -> None:
        assert batch([{"action": "work", "params": {"a": "x" * 2**20}}]).status_code == 413


def test_a_thousand_calls_are_one_packet(batch: Batch, redis_client: redis.Redis) -> None:
    before = redis_client.info("stats")["total_reads_processed"]
    assert set(statuses(batch([{"action": "work"}] * 1000))) == {202}
    reads = redis_client.info("stats")["total_reads_processed"] - before
    assert redis_client.llen(KEYS.queue("callboard")) == 1000
    assert reads < 800  # of some 6 kB each, and not one for each call


def test_names_that_there_are_not_cost_little(batch: Batch) -> None:
    found = answers(batch([{"action": f"wor{n}"} for n in range(1000)]))
    hints = sum("Did you mean" in answer["error"] for answer in found)
    assert hints == 20
    assert {answer["status"] for answer in found} == {404}


def test_each_call_is_in_the_log_and_the_metrics(batch: Batch, capfd: Any) -> None:
    batch([{"action": "work"}, {"action": "nope"}])
    lines = [line for line in capfd.readouterr().err.splitlines() if '"call"' in line]
    assert ["work" in lines[0], "nope" in lines[1]] == [True, True]
    assert '"status": 202' in lines[0]
