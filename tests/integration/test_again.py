"""``/api/runs/<id>/replay`` and ``/api/runs/bulk``: for the owner, on what has been called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
import redis
from ended_runs import SEALER, end, failing, lost, strict, work
from flask.testing import FlaskClient
from pymongo.database import Database

from api.runs import bulk as module
from callboard.runs.history import History
from callboard.runs.outcome import Outcome
from callboard.runs.seal import Call
from callboard.runs.store import Runs
from callboard.times import from_milliseconds, iso
from worker.archive.archiver import Archiver

Post = Callable[..., Any]
GIVEN = {"canary": "canary-param"}  # what `end` calls with


@pytest.fixture
def post(api: Callable[..., FlaskClient], make_token: Callable[..., str]) -> Post:
    client = api()

    def post(path: str, body: Any = None, sub: str | None = "owner") -> Any:
        headers = {"Authorization": f"Bearer {make_token(sub)}"} if sub else {}
        return client.post(path, json={} if body is None else body, headers=headers)

    return post


@pytest.fixture
def archiver(make_archiver: Callable[..., Archiver], database: Database[Any]) -> Archiver:
    return make_archiver(History(lambda: database, SEALER, keep_params=True))


def failed(run_id: str) -> Outcome:
    return Outcome.failed("Action failed", run_id)


def queued(runs: Runs, action: Any = work, **call: Any) -> str:
    run_id = str(uuid4())
    made = Call(**{"caller": "alice", "params": GIVEN, **call})
    runs.accept(run_id, action, made, max_queue=1000, result_ttl=60)
    return run_id


class TestReplay:
    @pytest.mark.parametrize("kept", ["record", "settled", "history"])
    @pytest.mark.parametrize("params", [None, {"n": 1}, {}])
    def test_it_is_a_new_run_of_the_same_call(
        self, post: Post, runs: Runs, archiver: Archiver, redis_client: redis.Redis, kept: str,
        params: Any,
    ) -> None:  # fmt: skip
        run_id = end(runs, failed)
        if kept != "record":
            archiver.turn()
        if kept == "history":
            redis_client.delete(f"callboard:run:{run_id}")
        response = post(
            f"/api/runs/{run_id}/replay", None if params is None else {"params": params}
        )
        assert response.status_code == 202
        new = response.headers["Run-Id"]
        assert new != run_id
        assert response.headers["Location"] == f"/api/runs/{new}"
        assert response.get_json()["data"] == {"runId": new, "status": "queued"}
        record = runs.read(new)
        assert record is not None
        assert record.call is not None
        assert (record.action, record.caller) == ("work", "alice")
        assert record.call.params == (GIVEN if params is None else params)
        assert record.call.jwt is None

    def test_one_without_params_is_replayed_from_the_history_too(
        self, post: Post, runs: Runs, archiver: Archiver, redis_client: redis.Redis
    ) -> None:
        run_id = queued(runs, params={})
        runs.claim(run_id, "work", "w:1", 5)
        assert runs.finish(run_id, "work", "w:1", failed(run_id))
        archiver.turn()
        redis_client.delete(f"callboard:run:{run_id}")
        assert post(f"/api/runs/{run_id}/replay").status_code == 202

    def test_it_is_the_owners_alone(self, post: Post, runs: Runs) -> None:
        run_id = end(runs)
        assert post(f"/api/runs/{run_id}/replay", sub="alice").status_code == 403
        assert post(f"/api/runs/{run_id}/replay", sub=None).status_code == 401
        assert post(f"/api/runs/{uuid4()}/replay").status_code == 404

    def test_what_is_not_kept_has_to_be_given(
        self, post: Post, runs: Runs, make_archiver: Callable[..., Archiver]
    ) -> None:
        run_id = end(runs)
        make_archiver().turn()  # of an application that keeps no params
        refused = post(f"/api/runs/{run_id}/replay")
        assert refused.status_code == 409
        assert "give it params" in refused.get_json()["error"]
        assert post(f"/api/runs/{run_id}/replay", {"params": {"n": 1}}).status_code == 202

    def test_a_run_whose_key_has_left_says_so(
        self, api: Callable[..., FlaskClient], make_token: Callable[..., str], runs: Runs,
        archiver: Archiver,
    ) -> None:  # fmt: skip
        run_id = end(runs)
        archiver.turn()
        client = api(SECRET_KEY="another-key-of-forty-characters-or-more!")
        headers = {"Authorization": f"Bearer {make_token('owner')}"}
        path = f"/api/runs/{run_id}/replay"
        refused = client.post(path, headers=headers)
        assert refused.status_code == 409
        assert "give it params" in refused.get_json()["error"]
        assert client.post(path, json={"params": {}}, headers=headers).status_code == 202

    def test_one_that_goes_on_is_not(self, post: Post, runs: Runs) -> None:
        refused = post(f"/api/runs/{queued(runs)}/replay")
        assert (refused.status_code, refused.get_json()["code"]) == (409, "conflict")

    def test_params_are_validated_as_for_a_call(self, post: Post, runs: Runs) -> None:
        run_id = queued(runs, strict, params={"name": "Ada"})
        runs.claim(run_id, "strict", "w:1", 5)
        assert runs.finish(run_id, "strict", "w:1", failed(run_id))
        refused = post(f"/api/runs/{run_id}/replay", {"params": {"name": 1}})
        assert (refused.status_code, refused.get_json()["issues"][0]["path"]) == (422, "name")

    @pytest.mark.parametrize("body", [[1], {"params": 1}, {"params": None}, {"param": {}}])
    def test_a_wrong_body_is_400(self, post: Post, runs: Runs, body: Any) -> None:
        assert post(f"/api/runs/{end(runs)}/replay", body).status_code == 400


class TestBulk:
    def test_cancels_what_is_open(self, post: Post, runs: Runs) -> None:
        mine, hers, over = queued(runs), queued(runs, caller="bob"), end(runs)
        response = post("/api/runs/bulk", {"do": "cancel", "filter": {"caller": "alice"}})
        assert response.get_json()["data"] == {"matched": 1, "done": 1, "complete": True}
        assert {run_id: record.status for run_id in (mine, hers, over)
                if (record := runs.read(run_id))} == {
            mine: "canceled", hers: "queued", over: "succeeded"
        }  # fmt: skip

    def test_retries_what_ended_so(self, post: Post, runs: Runs) -> None:
        again, over = end(runs, lost), end(runs, failed)
        data = post("/api/runs/bulk", {"do": "retry", "filter": {"action": "work"}}).get_json()
        assert data["data"] == {"matched": 2, "done": 1, "complete": True}
        assert [record and record.status for record in map(runs.read, (again, over))] == [
            "queued", "failed",
        ]  # fmt: skip

    def test_replays_wherever_they_are_kept(
        self, post: Post, runs: Runs, archiver: Archiver, redis_client: redis.Redis,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        monkeypatch.setattr(module, "PAGE", 2)
        old = [end(runs, failed) for _ in range(3)]
        archiver.turn()
        for run_id in old:
            redis_client.delete(f"callboard:run:{run_id}")
        end(runs, failed), end(runs)
        order = {"do": "replay", "filter": {"status": "failed"}}
        dry = post("/api/runs/bulk", {**order, "dryRun": True}).get_json()["data"]
        assert dry == {"matched": 4, "done": 0, "complete": True}
        before = redis_client.llen("callboard")
        assert post("/api/runs/bulk", order).get_json()["data"] == {**dry, "done": 4}
        assert redis_client.llen("callboard") == before + 4

    def test_one_that_the_applications_code_fails_stops_no_other(
        self, post: Post, runs: Runs
    ) -> None:
        refused = queued(runs, failing)
        runs.cancel(refused, "failing", Outcome.canceled(refused))
        end(runs), end(runs)
        order = {"do": "replay", "filter": {"caller": "alice"}}
        data = post("/api/runs/bulk", order).get_json()["data"]
        assert data == {"matched": 3, "done": 2, "complete": True}

    def test_no_more_than_the_limit(
        self, post: Post, runs: Runs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "PAGE", 2)
        for _ in range(5):
            queued(runs)
        order = {"do": "cancel", "filter": {"action": "work"}, "limit": 3}
        for expected in ({"matched": 3, "done": 3, "complete": False},
                         {"matched": 2, "done": 2, "complete": True}):  # fmt: skip
            assert post("/api/runs/bulk", order).get_json()["data"] == expected

    @pytest.mark.parametrize(("do", "put"), [("cancel", queued), ("retry", end)])
    def test_a_time_that_is_over_is_said_whatever_state_the_runs_are_in(
        self, post: Post, runs: Runs, monkeypatch: pytest.MonkeyPatch, do: str, put: Any
    ) -> None:
        monkeypatch.setattr(module, "SECONDS", -1.0)
        put(runs)
        data = post("/api/runs/bulk", {"do": do, "filter": {"action": "work"}}).get_json()
        assert data["data"] == {"matched": 0, "done": 0, "complete": False}

    def test_a_cancel_does_not_go_through_the_history(
        self, post: Post, runs: Runs, archiver: Archiver, redis_client: redis.Redis,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        old = end(runs)
        archiver.turn()
        redis_client.delete(f"callboard:run:{old}")
        monkeypatch.setattr(History, "page", lambda *_, **__: pytest.fail("it is read"))
        queued(runs)
        for chosen in ({"action": "work"}, {"status": "queued"}):
            order = {"do": "cancel", "filter": chosen, "dryRun": True}
            assert post("/api/runs/bulk", order).get_json()["data"]["matched"] == 1

    def test_of_a_time(self, post: Post, runs: Runs, api: Any, make_token: Any) -> None:
        run_id = queued(runs)
        record = runs.read(run_id)
        assert record is not None
        moment = record.enqueued

        def matched(**times: int) -> int:
            chosen = {name: _iso(when) for name, when in times.items()}
            order = {"do": "cancel", "filter": chosen, "dryRun": True}
            return post("/api/runs/bulk", order).get_json()["data"]["matched"]  # type: ignore[no-any-return]

        assert matched(since=moment, until=moment) == 1
        assert matched(since=moment + 1) == 0
        assert matched(until=moment - 1) == 0

    def test_it_is_the_owners_alone(self, post: Post) -> None:
        order = {"do": "cancel", "filter": {"action": "work"}}
        assert post("/api/runs/bulk", order, "alice").status_code == 403
        assert post("/api/runs/bulk", order, None).status_code == 401

    @pytest.mark.parametrize(
        "body",
        [
            {}, {"do": "cancel"}, {"do": "cancel", "filter": {}},
            {"do": "cancel", "filter": {"action": None, "caller": None}},
            {"do": "cancel", "filter": {"parent": "x"}}, {"do": "drop", "filter": {"action": "a"}},
            {"do": [], "filter": {"action": "a"}}, {"do": "cancel", "filter": {"action": 1}},
            {"do": "cancel", "filter": {"status": "done"}},
            {"do": "cancel", "filter": {"status": ["queued"]}},
            {"do": "cancel", "filter": {"caller": ""}}, {"do": "cancel", "filter": {"caller": 1}},
            {"do": "cancel", "filter": {"since": "2h"}},
            {"do": "cancel", "filter": {"since": "2026-01-31T08:00:00"}},
            {"do": "cancel", "filter": {"until": 5}},
            {"do": "cancel", "filter": {"action": "a"}, "limit": 0},
            {"do": "cancel", "filter": {"action": "a"}, "limit": 10_001},
            {"do": "cancel", "filter": {"action": "a"}, "limit": True},
            {"do": "cancel", "filter": {"action": "a"}, "dryRun": 1},
            {"do": "cancel", "filter": {"action": "a"}, "all": True}, [1],
        ],
    )  # fmt: skip
    def test_a_wrong_order_is_400(self, post: Post, body: Any) -> None:
        response = post("/api/runs/bulk", body)
        assert (response.status_code, response.get_json()["code"]) == (400, "bad_request")


def _iso(milliseconds: int) -> str:
    return iso(from_milliseconds(milliseconds))
