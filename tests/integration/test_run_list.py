"""``/api/runs`` over live runs and history: whose, in which order, page by page."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any
from uuid import uuid4

import pytest
import redis
from ended_runs import end, finish, lost, work
from flask.testing import FlaskClient
from pymongo import MongoClient

from callboard.connections.keys import Keys
from callboard.runs.history import RUNS
from callboard.runs.outcome import Outcome
from callboard.runs.seal import Call, Sealer
from callboard.runs.start import Start, Terms
from callboard.runs.store import Accepted, Runs
from callboard.stack.ports import free_port
from worker.archive.archiver import Archiver

Get = Callable[..., Any]


@pytest.fixture
def get(api: Callable[..., FlaskClient], make_token: Callable[..., str]) -> Get:
    """GET as somebody, the data of a 200: ``get("/api/runs", "alice", limit=3)``."""
    client = api()

    def get(path: str, sub: str = "alice", **query: Any) -> Any:
        headers = {"Authorization": f"Bearer {make_token(sub)}"}
        response = client.get(path, headers=headers, query_string=query)
        assert response.status_code == 200, response.get_json()
        return response.get_json()["data"]

    return get


def ids(data: dict[str, Any]) -> list[str]:
    return [row["runId"] for row in data["runs"]]


def queue(runs: Runs, caller: str | None = "alice") -> str:
    run_id = str(uuid4())
    runs.accept(run_id, work, Call(caller=caller), max_queue=1000, result_ttl=60)
    return run_id


def enqueued(client: redis.Redis, run_id: str) -> float:
    """When, in epoch milliseconds; by which the list is sorted."""
    score = client.zscore(Keys().live, run_id)
    assert isinstance(score, float)
    return score


class TestList:
    def test_live_runs_and_history_are_one_list(
        self, get: Get, runs: Runs, archiver: Archiver
    ) -> None:
        past = [end(runs) for _ in range(3)]
        archiver.turn()
        live = [end(runs), queue(runs)]
        rows = get("/api/runs")["runs"]
        assert {row["runId"] for row in rows} == {*past, *live}
        moments = [row["enqueuedAt"] for row in rows]
        assert moments == sorted(moments, reverse=True)
        by_id = {row["runId"]: row for row in rows}
        assert by_id[live[1]]["status"] == "queued"
        assert set(by_id[past[0]]) == {
            "runId", "action", "status", "attempts", "enqueuedAt", "startedAt", "completedAt",
            "createdBy", "error", "lost",
        }  # fmt: skip

    def test_a_caller_sees_only_his_own_and_the_owner_all(
        self, get: Get, runs: Runs, archiver: Archiver
    ) -> None:
        past = {name: end(runs, caller=name) for name in ("alice", "bob", None)}
        archiver.turn()
        live = {name: queue(runs, caller=name) for name in ("alice", "bob", None)}
        for name in ("alice", "bob"):
            assert {*ids(get("/api/runs", name))} == {past[name], live[name]}
        assert {*ids(get("/api/runs", "owner"))} == {*past.values(), *live.values()}
        assert ids(get("/api/runs", "nobody")) == []

    def test_pages_hold_each_run_once_while_runs_move_into_the_history(
        self, get: Get, runs: Runs, archiver: Archiver
    ) -> None:
        expected = [end(runs) for _ in range(40)]
        archiver.turn()
        expected += [end(runs) for _ in range(40)] + [queue(runs) for _ in range(3)]
        seen: list[str] = []
        page = get("/api/runs", limit=7)
        while True:
            seen += ids(page)
            if page["after"] is None:
                break
            if len(seen) == 14:
                archiver.turn()
                queue(runs)
            page = get("/api/runs", limit=7, after=page["after"])
        assert sorted(seen) == sorted(expected)

    def test_a_caller_sees_his_runs_of_every_key_while_a_key_is_rotated(
        self,
        api: Callable[..., FlaskClient],
        make_token: Callable[..., str],
        runs: Runs,
        redis_client: redis.Redis,
    ) -> None:
        rotated = Runs(redis_client, Sealer(("n" * 40, "k" * 40)), Keys())
        with closing(rotated._pipelined):
            expected = [queue(of) for of in (runs, rotated, runs, runs, rotated, rotated, runs)]
            queue(rotated, caller="bob")
        client = api(SECRET_KEY="n" * 40 + "," + "k" * 40)
        token = {"Authorization": f"Bearer {make_token('alice')}"}
        seen: list[str] = []
        query: dict[str, Any] = {"limit": 2}
        while query.get("after", "") is not None:
            page = client.get("/api/runs", query_string=query, headers=token).get_json()["data"]
            seen += ids(page)
            query["after"] = page["after"]
        assert sorted(seen) == sorted(expected)
        assert sorted(seen, key=lambda run_id: -enqueued(redis_client, run_id)) == seen

    def test_filters(self, get: Get, runs: Runs, archiver: Archiver) -> None:
        gone, failed = end(runs, lost), end(runs, lambda run_id: Outcome.failed("No", run_id))
        archiver.turn()
        fresh, queued = end(runs, lost), queue(runs)
        assert {*ids(get("/api/runs", status="failed"))} == {gone, failed, fresh}
        assert {*ids(get("/api/runs", lost="true"))} == {gone, fresh}
        assert ids(get("/api/runs", status="queued")) == [queued]
        assert ids(get("/api/runs", action="other")) == []
        assert len(ids(get("/api/runs", action="work", limit=3))) == 3

    def test_a_run_that_was_started_again_is_what_it_is_now(
        self, get: Get, runs: Runs, archiver: Archiver
    ) -> None:
        run_id = end(runs, lost)
        archiver.turn()
        record = runs.read(run_id)
        assert record is not None
        assert record.call is not None
        runs.retry(record, record.call)
        assert [row["status"] for row in get("/api/runs")["runs"]] == ["queued"]
        assert ids(get("/api/runs", status="failed")) == []
        finish(runs, run_id)
        assert [row["status"] for row in get("/api/runs")["runs"]] == ["succeeded"]

    def test_the_index_forgets_a_run_whose_record_is_gone(
        self, get: Get, runs: Runs, redis_client: redis.Redis
    ) -> None:
        run_id = queue(runs)
        redis_client.delete(f"callboard:run:{run_id}")
        assert ids(get("/api/runs")) == ids(get("/api/runs", "owner")) == []
        assert not [*redis_client.scan_iter("callboard:live*")]

    @pytest.mark.parametrize(
        "query",
        [
            {"limit": "0"}, {"limit": "201"}, {"limit": "many"}, {"limit": "-1"},
            {"status": "done"}, {"action": "no such"}, {"lost": "1"},
            {"lost": "true", "status": "queued"}, {"parent": "nobody"},
            {"after": "nonsense"}, {"after": ""}, {"after": "W10"}, {"after": "WzEsMl0"},
            {"after": "Wy0xLCJ4Il0"}, {"after": "WzFlOTksIngiXQ"}, {"after": "ü"},
        ],
    )  # fmt: skip
    def test_bad_values_are_400(
        self, api: Callable[..., FlaskClient], make_token: Callable[..., str], query: dict[str, str]
    ) -> None:
        headers = {"Authorization": f"Bearer {make_token()}"}
        response = api().get("/api/runs", headers=headers, query_string=query)
        assert response.status_code == 400
        assert next(iter(query)) in response.get_json()["error"]

    def test_nobody_is_401(self, api: Callable[..., FlaskClient]) -> None:
        assert api().get("/api/runs").status_code == 401


class TestChildren:
    """``?parent=``: the runs that a run has started."""

    @pytest.fixture
    def start(self, runs: Runs) -> Callable[..., str]:
        """Start a child: ``start(parent, caller="alice", delay=0)``."""

        def start(parent: str, caller: str | None = "alice", **terms: Any) -> str:
            call = Call(caller=caller, parent=parent, depth=1)
            made = Start(run_id=str(uuid4()), action=work, call=call, terms=Terms(**terms))
            [accepted] = runs.accept_many([made], max_queue=1000, result_ttl=60)
            assert isinstance(accepted, Accepted)
            return accepted.run_id

        return start

    def test_they_are_listed_wherever_they_are_and_however_they_stand(
        self, get: Get, runs: Runs, archiver: Archiver, redis_client: redis.Redis, start: Any
    ) -> None:
        parent, other = str(uuid4()), str(uuid4())
        gone, in_both, queued = (start(parent) for _ in range(3))
        waiting = start(parent, delay=60_000)
        start(other)
        end(runs)
        for run_id in (gone, in_both):
            finish(runs, run_id)
        archiver.turn()
        redis_client.delete(f"callboard:run:{gone}")
        children = get("/api/runs", "owner", parent=parent)
        assert {*ids(children)} == {gone, in_both, queued, waiting}
        assert {row["status"] for row in children["runs"]} == {"succeeded", "queued", "waiting"}
        runs.cancel(waiting, "work", Outcome.canceled(waiting))
        finish(runs, queued)
        archiver.turn()
        assert {*ids(get("/api/runs", "owner", parent=parent))} == {*ids(children)}
        assert not redis_client.exists(f"callboard:live:{parent}")

    def test_it_is_a_list_of_pages_and_shows_a_caller_his_own(
        self, get: Get, archiver: Archiver, runs: Runs, start: Any
    ) -> None:
        parent = str(uuid4())
        mine = [start(parent) for _ in range(5)]
        for run_id in mine[:2]:
            finish(runs, run_id)
        archiver.turn()
        owners = start(parent, caller="owner")
        seen: list[str] = []
        page = get("/api/runs", parent=parent, limit=2)
        seen += ids(page)
        while page["after"]:
            page = get("/api/runs", parent=parent, limit=2, after=page["after"])
            seen += ids(page)
        assert sorted(seen) == sorted(mine)
        assert {*ids(get("/api/runs", "owner", parent=parent))} == {*mine, owners}
        assert ids(get("/api/runs", "bob", parent=parent)) == []

    def test_who_writes_redis_gives_no_run_another_parent(
        self, get: Get, redis_client: redis.Redis, start: Any
    ) -> None:
        parent, run_id = str(uuid4()), start(str(uuid4()))
        redis_client.zadd(f"callboard:live:{parent}", {run_id: 1})
        assert ids(get("/api/runs", "owner", parent=parent)) == []

    def test_one_that_starts_again_is_still_a_child(
        self, get: Get, runs: Runs, archiver: Archiver, start: Any
    ) -> None:
        parent = str(uuid4())
        finish(runs, run_id := start(parent), lost)
        archiver.turn()
        record = runs.read(run_id)
        assert record is not None
        assert record.call is not None
        runs.retry(record, record.call)
        [row] = get("/api/runs", "owner", parent=parent)["runs"]
        assert (row["runId"], row["status"]) == (run_id, "queued")


class TestOneRun:
    def test_after_its_record_it_looks_the_same(
        self, get: Get, runs: Runs, archiver: Archiver, redis_client: redis.Redis
    ) -> None:
        run_id = end(runs)
        before = get(f"/api/runs/{run_id}")
        archiver.turn()
        redis_client.delete(f"callboard:run:{run_id}")
        assert get(f"/api/runs/{run_id}") == before
        assert get(f"/api/runs/{run_id}", wait=5) == before
        assert get(f"/api/runs/{run_id}", "owner") == before

    def test_it_stays_its_callers(
        self,
        api: Callable[..., FlaskClient],
        make_token: Callable[..., str],
        runs: Runs,
        archiver: Archiver,
        redis_client: redis.Redis,
    ) -> None:
        mine, anonymous = end(runs), end(runs, caller=None)
        archiver.turn()
        redis_client.delete(*(f"callboard:run:{run_id}" for run_id in (mine, anonymous)))
        client = api()
        bob = {"Authorization": f"Bearer {make_token('bob')}"}
        assert client.get(f"/api/runs/{mine}", headers=bob).status_code == 404
        assert client.get(f"/api/runs/{mine}").status_code == 404
        assert client.get(f"/api/runs/{anonymous}").status_code == 200
        assert client.get(f"/api/runs/{uuid4()}").status_code == 404

    def test_cancel_and_events_of_a_past_run_change_nothing(
        self,
        api: Callable[..., FlaskClient],
        make_token: Callable[..., str],
        runs: Runs,
        archiver: Archiver,
        redis_client: redis.Redis,
    ) -> None:
        run_id = end(runs)
        archiver.turn()
        redis_client.delete(f"callboard:run:{run_id}")
        client, alice = api(), {"Authorization": f"Bearer {make_token()}"}
        canceled = client.post(f"/api/runs/{run_id}/cancel", headers=alice)
        assert canceled.get_json()["data"]["status"] == "succeeded"
        events = client.get(f"/api/runs/{run_id}/events", headers=alice).text
        assert events.count("event:") == 1


class TestRetry:
    @pytest.fixture
    def retry(self, api: Callable[..., FlaskClient], make_token: Callable[..., str]) -> Get:
        client = api()

        def retry(run_id: str, sub: str | None = "owner") -> Any:
            headers = {"Authorization": f"Bearer {make_token(sub)}"} if sub else {}
            return client.post(f"/api/runs/{run_id}/retry", headers=headers)

        return retry

    def test_a_lost_run_starts_again_under_its_id(
        self, retry: Get, runs: Runs, archiver: Archiver
    ) -> None:
        run_id = end(runs, lost)
        archiver.turn()
        response = retry(run_id)
        assert (response.status_code, response.get_json()["data"]["status"]) == (200, "queued")
        finish(runs, run_id)

    def test_it_is_the_owners_alone(self, retry: Get, runs: Runs) -> None:
        run_id = end(runs, lost)
        assert retry(run_id, "alice").status_code == 403
        assert retry(run_id, None).status_code == 401
        assert retry(str(uuid4())).status_code == 404

    def test_no_other_end_does_wherever_the_run_is_kept(
        self, retry: Get, runs: Runs, archiver: Archiver, redis_client: redis.Redis
    ) -> None:
        ends = {
            "succeeded": end(runs),
            "failed": end(runs, lambda run_id: Outcome.failed("Action failed", run_id)),
            "canceled": end(runs, Outcome.canceled),
        }

        def refused(status: str) -> bool:
            response = retry(ends[status])
            told = f"A run that is {status} starts again only after `Worker lost`"
            return (response.status_code, response.get_json()["error"]) == (409, told)

        assert all(map(refused, ends))  # just ended
        archiver.turn()
        assert all(map(refused, ends))  # in the history, its record without its params
        for run_id in ends.values():
            redis_client.delete(f"callboard:run:{run_id}")
        assert all(map(refused, ends))  # in the history alone
        ends["queued"] = queue(runs)
        assert refused("queued")

    def test_a_lost_run_whose_params_are_gone_does_not(
        self, retry: Get, runs: Runs, archiver: Archiver, redis_client: redis.Redis
    ) -> None:
        run_id = end(runs, lost)
        archiver.turn()
        redis_client.delete(f"callboard:run:{run_id}")
        response = retry(run_id)
        assert response.status_code == 409
        assert "no longer kept; call the action again" in response.get_json()["error"]


def test_without_the_database_the_list_is_503_and_live_runs_are_there(
    api: Callable[..., FlaskClient], make_token: Callable[..., str], runs: Runs
) -> None:
    client = api(MONGODB_URI=f"mongodb://127.0.0.1:{free_port()}/x")
    headers = {"Authorization": f"Bearer {make_token()}"}
    refused = client.get("/api/runs", headers=headers)
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "2")
    assert client.get(f"/api/runs/{queue(runs)}", headers=headers).status_code == 200


def test_ties_in_the_history_are_ordered_by_id(
    get: Get,
    runs: Runs,
    archiver: Archiver,
    database_client: MongoClient[Any],
    database_name: str,
) -> None:
    expected = sorted((end(runs) for _ in range(20)), reverse=True)
    archiver.turn()
    collection = database_client[database_name][RUNS]
    moment = collection.find_one()["enqueuedAt"]
    collection.update_many({}, {"$set": {"enqueuedAt": moment}})
    seen: list[str] = []
    page = get("/api/runs", limit=6)
    seen += ids(page)
    while page["after"]:
        page = get("/api/runs", limit=6, after=page["after"])
        seen += ids(page)
    assert seen == expected
