"""Calls that are due later: ``Run-Delay`` and ``Run-At``."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from ended_runs import ACTIONS, finish
from flask.testing import FlaskClient
from pymongo.database import Database

from callboard.connections.keys import Keys
from callboard.connections.mongodb import Store
from callboard.registry import Registry
from callboard.runs.outbox import OUTBOX, Outbox, Row
from callboard.runs.record import RunRecord
from callboard.runs.seal import CALL_LIFETIME
from callboard.runs.store import Runs
from callboard.settings import Settings
from callboard.stack.ports import free_port
from worker.outbox.publisher import Publisher
from worker.services import Services

Call = Callable[..., Any]
Data = Database[dict[str, Any]]
DAY = 86_400
KEYS = Keys()


@pytest.fixture
def call(api: Callable[..., FlaskClient], make_token: Callable[..., str]) -> Call:
    """``call("work", {"n": 1}, sub="alice", Run_Delay=60)``: the response."""
    clients: list[FlaskClient] = []

    def call(
        action: str, params: Any = None, sub: str | None = "alice", settings: Any = None,
        **headers: Any,
    ) -> Any:  # fmt: skip
        if not clients:
            clients.append(api(**(settings or {})))
        given = {name.replace("_", "-"): str(value) for name, value in headers.items()}
        if sub:
            given["Authorization"] = f"Bearer {make_token(sub)}"
        return clients[0].post(f"/api/actions/{action}", json=params or {}, headers=given)

    return call


def read(runs: Runs, response: Any) -> RunRecord:
    record = runs.read(response.headers["Run-Id"])
    assert record is not None
    return record


def in_seconds(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


class TestAccepted:
    @pytest.mark.parametrize(
        "headers", [{"Run_Delay": 60}, {"Run_At": in_seconds(DAY)}], ids=["delay", "at"]
    )
    def test_it_waits_for_its_time(
        self, call: Call, runs: Runs, redis_client: redis.Redis, headers: dict[str, Any]
    ) -> None:
        response = call("work", {"n": 1}, Prefer="wait=5", **headers)
        record = read(runs, response)
        assert response.status_code == 202
        assert response.get_json()["data"] == {"runId": record.id, "status": "waiting"}
        assert response.headers["Preference-Applied"] == "respond-async"
        assert response.headers["Location"] == f"/api/runs/{record.id}"
        assert (record.status, record.caller) == ("waiting", "alice")
        assert record.call is not None
        assert record.call.params == {"n": 1}
        assert record.due is not None
        assert record.due > time.time() * 1000
        assert redis_client.llen(KEYS.queue("callboard")) == 0

    def test_no_delay_is_now(self, call: Call, runs: Runs, redis_client: redis.Redis) -> None:
        response = call("work", Run_Delay=0)
        assert (response.status_code, response.get_json()["data"]["status"]) == (202, "queued")
        assert read(runs, response).status == "queued"
        assert redis_client.llen(KEYS.queue("callboard")) == 1

    def test_anonymous(self, call: Call, runs: Runs) -> None:
        assert read(runs, call("open", sub=None, Run_Delay=7200)).caller is None

    def test_the_call_lives_from_then_on_and_the_token_goes_along_for_a_day(
        self, call: Call, runs: Runs
    ) -> None:
        for seconds, has_token in ((DAY, True), (DAY + 1, False)):
            made = read(runs, call("work", Run_Delay=seconds)).call
            assert made is not None
            assert (made.jwt is not None) is has_token
            assert made.claims["sub"] == "alice"
            assert abs(made.expires - time.time() - seconds - CALL_LIFETIME) < 60

    def test_a_full_queue_is_no_hindrance(self, call: Call) -> None:
        full = {"CALLBOARD_MAX_QUEUE": "1"}
        assert call("work", settings=full, Prefer="respond-async").status_code == 202
        assert call("work", Prefer="respond-async").status_code == 503
        assert call("work", Run_Delay=0).status_code == 503
        assert call("work", Run_Delay=5).status_code == 202


class TestOutbox:
    def test_what_is_due_in_more_than_an_hour_is_there(
        self, call: Call, database: Data, runs: Runs
    ) -> None:
        call("work", Run_Delay=3600)
        later = call("work", {"n": 2}, Run_Delay=7200, Idempotency_Key="k").headers["Run-Id"]
        [document] = database[OUTBOX].find()
        row = Outbox(lambda: database, runs.sealer).opened(
            document, {action.name: action for action in ACTIONS}
        )
        assert isinstance(row, Row)
        assert (row.start.run_id, row.start.call.params) == (later, {"n": 2})
        assert row.start.idempotency is not None
        assert row.due is not None
        assert abs(row.due.timestamp() - time.time() - 7200) < 60

    def test_it_survives_the_loss_of_redis(
        self, call: Call, runs: Runs, redis_client: redis.Redis, variables: dict[str, str],
        mongodb_uri: str,
    ) -> None:  # fmt: skip
        soon = call("work", Run_Delay=60).headers["Run-Id"]
        later = call("work", {"n": 2}, Run_Delay=7200, Idempotency_Key="k")
        redis_client.flushdb()
        registry = Registry(actions={action.name: action for action in ACTIONS})
        services = Services(Settings(**variables), registry)
        services.store = Store(mongodb_uri)
        publisher = Publisher(services)
        with closing(services.store), closing(services.runs), closing(publisher._runs):
            publisher.turn()
        record = read(runs, later)
        assert (record.status, record.caller) == ("waiting", "alice")
        assert record.due is not None
        assert abs(record.due / 1000 - time.time() - 7200) < 60
        assert runs.read(soon) is None
        again = call("work", {"n": 2}, Run_Delay=7200, Idempotency_Key="k")
        assert again.headers["Run-Id"] == record.id

    def test_one_key_leaves_one_row(self, call: Call, database: Data) -> None:
        first = call("work", Run_Delay=7200, Idempotency_Key="k")
        call("work", Run_Delay=7300, Idempotency_Key="k")
        assert call("work", {"n": 1}, Run_Delay=7200, Idempotency_Key="k").status_code == 422
        assert [row["_id"] for row in database[OUTBOX].find()] == [first.headers["Run-Id"]]

    def test_without_redis_it_is_accepted_all_the_same(self, call: Call, database: Data) -> None:
        away = {"REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"}
        response = call("work", settings=away, Run_Delay=7200)
        assert response.status_code == 202
        assert [row["_id"] for row in database[OUTBOX].find()] == [response.headers["Run-Id"]]
        assert call("work", Run_Delay=7200, Idempotency_Key="k").status_code == 503
        assert call("work", Run_Delay=60).status_code == 503

    def test_without_the_database_what_is_due_soon_is_accepted(self, call: Call) -> None:
        away = {"MONGODB_URI": f"mongodb://127.0.0.1:{free_port()}/x?serverSelectionTimeoutMS=50"}
        assert call("work", settings=away, Run_Delay=60).status_code == 202
        assert call("work", Run_Delay=7200).status_code == 503


class TestIdempotencyKey:
    def test_it_is_one_run_however_late(self, call: Call, redis_client: redis.Redis) -> None:
        first = call("work", {"n": 1}, Run_Delay=DAY, Idempotency_Key="k")
        for headers in ({"Run_Delay": 5}, {"Run_At": in_seconds(-60)}, {"Run_At": in_seconds(60)}):
            again = call("work", {"n": 1}, Idempotency_Key="k", **headers)
            assert (again.status_code, again.headers["Idempotent-Replayed"]) == (202, "true")
            assert again.get_json() == first.get_json()
        [key] = redis_client.keys("callboard:idempotency:*")
        assert redis_client.pttl(key) > DAY * 1000  # a day from when it is due

    def test_another_body_is_refused(self, call: Call) -> None:
        call("work", {"n": 1}, Run_Delay=5, Idempotency_Key="k")
        assert call("work", {"n": 2}, Run_Delay=5, Idempotency_Key="k").status_code == 422

    def test_a_run_that_ended_is_answered_with_its_end(self, call: Call, runs: Runs) -> None:
        run_id = call("work", Run_Delay=0, Idempotency_Key="k").headers["Run-Id"]
        finish(runs, run_id)
        again = call("work", Run_Delay=5, Idempotency_Key="k")
        assert (again.status_code, again.get_json()["data"]) == (200, "canary-result")


class TestRefused:
    @pytest.mark.parametrize(
        ("headers", "told"),
        [
            ({"Run_Delay": "soon"}, "'soon'"),
            ({"Run_At": "tomorrow"}, "'tomorrow'"),
            ({"Run_Delay": 5, "Run_At": in_seconds(60)}, "send one of them"),
            ({"Run_At": in_seconds(-60)}, "is past"),
            ({"Run_At": in_seconds(-60), "Idempotency_Key": "new"}, "is past"),
            ({"Run_At": in_seconds(367 * DAY)}, "366 days"),
        ],
    )
    def test_400(self, call: Call, runs: Runs, headers: dict[str, Any], told: str) -> None:
        response = call("work", **headers)
        assert response.status_code == 400
        assert told in response.get_json()["error"]
        assert "Run-Id" not in response.headers

    def test_as_a_call_that_is_due_now(self, call: Call) -> None:
        assert call("work", sub=None, Run_Delay=5).status_code == 401
        assert call("hidden", Run_Delay=5).status_code == 404
        assert call("strict", {"name": 1}, Run_Delay=5).status_code == 422
        assert call("open", sub=None, Run_Delay=5, Idempotency_Key="k").status_code == 400


class TestReschedule:
    @pytest.fixture
    def reschedule(
        self, api: Callable[..., FlaskClient], make_token: Callable[..., str]
    ) -> Callable[..., Any]:
        client = api()

        def post(run_id: str, body: Any, sub: str = "alice") -> Any:
            headers = {"Authorization": f"Bearer {make_token(sub)}"}
            return client.post(f"/api/runs/{run_id}/reschedule", json=body, headers=headers)

        return post

    @pytest.fixture
    def waiting(self, call: Call) -> str:
        run_id: str = call("work", {"n": 1}, Run_Delay=600).headers["Run-Id"]
        return run_id

    @pytest.mark.parametrize(
        ("sub", "body", "seconds"),
        [
            ("alice", {"delay": 60}, 60),
            ("owner", {"delay": 1.5}, 1.5),
            ("alice", {"delay": 0}, 0),
            ("alice", {"delay": 7200}, 7200),
        ],
    )
    def test_it_waits_until_then(
        self, reschedule: Any, waiting: str, runs: Runs, database: Data, sub: str,
        body: dict[str, Any], seconds: float,
    ) -> None:  # fmt: skip
        response = reschedule(waiting, body, sub)
        shown = response.get_json()["data"]
        assert response.status_code == 200, shown
        assert shown["status"] == "waiting"
        until = datetime.fromisoformat(shown["waitingFor"]["until"]).timestamp()
        assert abs(until - time.time() - seconds) < 30
        record = runs.read(waiting)
        assert record is not None
        assert record.call is not None
        assert record.call.params == {"n": 1}
        assert abs(record.call.expires - time.time() - seconds - CALL_LIFETIME) < 30
        assert database[OUTBOX].count_documents({}) == (1 if seconds > 3600 else 0)

    def test_at_a_time(self, reschedule: Any, waiting: str) -> None:
        at = "2099-01-31T09:00:00Z"
        assert reschedule(waiting, {"at": at}).status_code == 400  # too far ahead
        at = (datetime.now(UTC) + timedelta(days=2)).isoformat(timespec="milliseconds")
        until = reschedule(waiting, {"at": at}).get_json()["data"]["waitingFor"]["until"]
        shift = datetime.fromisoformat(until) - datetime.fromisoformat(at)
        assert abs(shift) < timedelta(seconds=2)

    def test_others_are_told_that_there_is_no_such_run(self, reschedule: Any, waiting: str) -> None:
        assert reschedule(waiting, {"delay": 5}, "bob").status_code == 404

    @pytest.mark.parametrize(
        ("body", "told"),
        [
            ({}, "either"),
            ({"delay": 1, "at": "2099-01-31T09:00:00Z"}, "either"),
            ({"delay": "1"}, "'1'"),
            ({"delay": -1}, "-1"),
            ({"at": "2020-01-31T09:00:00Z"}, "is past"),
            ({"delay": 1, "when": 1}, "'when'"),
            ([], "JSON object"),
        ],
    )
    def test_400(self, reschedule: Any, waiting: str, body: Any, told: str) -> None:
        response = reschedule(waiting, body)
        assert response.status_code == 400
        assert told in response.get_json()["error"]

    def test_a_run_that_does_not_wait_keeps_its_time(
        self, reschedule: Any, call: Call, runs: Runs
    ) -> None:
        run_id = call("work", Run_Delay=0).headers["Run-Id"]
        for told in ("is queued", "is succeeded"):
            response = reschedule(run_id, {"delay": 5})
            assert response.status_code == 409
            assert told in response.get_json()["error"]
            if told == "is queued":
                finish(runs, run_id)
