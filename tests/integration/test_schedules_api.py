"""`/api/schedules` and `callboard schedules`: for the owner, on real servers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result
from scheduled_app import ScheduledApp, work

from api.app import create_app
from callboard import Schedule
from callboard.cli import main
from callboard.registry import Registry, get_registry
from callboard.runs.seal import Call, Sealer
from callboard.schedules.stored import STORED, StoredSchedules

EACH_MINUTE = Schedule("s", "work", every_minutes=1, params={"deep": 3})
DIGEST = Schedule("d", "work", cron="0 9 * * *", timezone="America/New_York", paused=True)

Ask = Callable[..., Any]


@pytest.fixture
def ask(app: ScheduledApp, make_token: Callable[..., str]) -> Iterator[Ask]:
    """Asks the API: ``ask("GET", "/s/history", sub="alice")``; ``sub=None`` without a token."""
    registry = Registry(actions={"work": work}, schedules=(EACH_MINUTE, DIGEST))
    api = create_app(app.settings, registry)
    app.stores.append(api.extensions["callboard"].store)
    client = api.test_client()

    def ask(method: str, path: str = "", *, sub: str | None = "owner") -> Any:
        headers = {"Authorization": f"Bearer {make_token(sub)}"} if sub else {}
        return client.open(f"/api/schedules{path}", method=method, headers=headers)

    yield ask
    api.extensions["callboard"].close()


ROUTES = [
    ("GET", ""),
    ("GET", "/s/history"),
    *(("POST", f"/s/{deed}") for deed in ("trigger", "pause", "resume")),
]


class TestHttp:
    @pytest.mark.parametrize(("method", "path"), ROUTES)
    def test_is_for_the_owner(self, ask: Ask, app: ScheduledApp, method: str, path: str) -> None:
        nobody = ask(method, path, sub=None)
        assert (nobody.status_code, nobody.json["error"]) == (401, "Unauthorized")
        assert nobody.headers["WWW-Authenticate"] == "Bearer"
        other = ask(method, path, sub="alice")
        assert (other.status_code, other.json["error"]) == (403, "Forbidden: owner only")
        assert app.queued() == []

    def test_lists_what_is_declared_before_a_beat_has_seen_it(self, ask: Ask) -> None:
        [each_minute, digest] = ask("GET").json["data"]["schedules"]
        assert each_minute["nextFire"].endswith(":00.000Z")
        assert {**each_minute, "nextFire": "then"} == {
            "name": "s",
            "action": "work",
            "everyMinutes": 1,
            "cron": None,
            "timezone": None,
            "params": {"deep": 3},
            "catchUp": "last",
            "overlap": "skip",
            "paused": False,
            "lastFire": None,
            "nextFire": "then",
        }
        assert (digest["timezone"], digest["paused"]) == ("America/New_York", True)
        assert digest["nextFire"] is None

    def test_shows_the_history_newest_first(self, ask: Ask, app: ScheduledApp) -> None:
        beat = app.beat(EACH_MINUTE)
        app.clock.advance(minutes=2)
        beat.turn()
        app.work()
        newest, oldest = ask("GET", "/s/history").json["data"]["fires"]
        assert (newest["outcome"], newest["attempts"], newest["manual"]) == ("succeeded", 1, False)
        assert newest["plannedAt"] > oldest["plannedAt"]
        assert newest["completedAt"] >= newest["startedAt"]
        assert (oldest["outcome"], oldest["runId"]) == ("missed", None)
        assert len(ask("GET", "/s/history?limit=1").json["data"]["fires"]) == 1

    @pytest.mark.parametrize("limit", ["0", "1001", "-1", "ten", "", "²"])
    def test_a_limit_is_1_to_1000(self, ask: Ask, limit: str) -> None:
        assert ask("GET", f"/s/history?limit={limit}").status_code == 400

    def test_a_trigger_is_a_run_like_any_other(self, ask: Ask, app: ScheduledApp) -> None:
        response = ask("POST", "/s/trigger")
        run_id = response.json["data"]["runId"]
        assert (response.status_code, response.json["data"]["status"]) == (202, "queued")
        assert response.headers["Run-Id"] == run_id
        assert response.headers["Location"] == f"/api/runs/{run_id}"
        assert app.work() == [run_id]
        [fire] = ask("GET", "/s/history").json["data"]["fires"]
        assert (fire["runId"], fire["manual"]) == (run_id, True)

    def test_pauses_and_resumes(self, ask: Ask) -> None:
        paused = ask("POST", "/s/pause").json["data"]
        assert (paused["paused"], paused["nextFire"]) == (True, None)
        resumed = ask("POST", "/s/resume").json["data"]
        assert resumed["paused"] is False
        assert resumed["nextFire"] is not None

    def test_an_unknown_schedule_is_not_found(self, ask: Ask) -> None:
        for method, path in (("GET", "/x/history"), ("POST", "/x/trigger"), ("POST", "/x/pause")):
            response = ask(method, path)
            assert (response.status_code, response.json["error"]) == (404, "No schedule 'x'")

    def test_a_database_that_is_away_is_503(
        self, ask: Ask, app: ScheduledApp, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        app.move_database_away(monkeypatch)
        response = ask("GET")
        assert response.status_code == 503
        assert response.headers["Retry-After"] == "2"


class TestStored:
    """Those that handlers have put, by the same routes and commands."""

    @pytest.fixture
    def stored(self, app: ScheduledApp) -> StoredSchedules:
        stored = StoredSchedules(app.store.database, Sealer(app.settings.secret_keys))
        for number in range(3):
            schedule = Schedule(f"user|{number}", "work", every_minutes=60)
            stored.put(schedule, Call(caller="alice", params={"deep": number}), app.clock(), None)
        return stored

    def test_they_come_in_pages_behind_the_declared_ones(
        self, ask: Ask, stored: StoredSchedules
    ) -> None:
        first = ask("GET", "?limit=2").json["data"]
        assert [row["name"] for row in first["schedules"]] == ["s", "d", "user|0", "user|1"]
        assert (first["schedules"][2]["caller"], first["schedules"][3]["params"]) == (
            "alice", {"deep": 1},
        )  # fmt: skip
        last = ask("GET", f"?limit=2&after={first['after']}").json["data"]
        assert [row["name"] for row in last["schedules"]] == ["user|2"]
        assert last["after"] is None
        assert ask("GET", "?limit=0").status_code == 400

    def test_they_are_paused_resumed_and_triggered(
        self, ask: Ask, app: ScheduledApp, stored: StoredSchedules
    ) -> None:
        beat = app.beat()
        paused = ask("POST", "/user|1/pause").json["data"]
        assert (paused["paused"], paused["nextFire"]) == (True, None)
        app.clock.advance(minutes=60)
        beat.turn()
        assert len(app.work()) == 2
        assert ask("POST", "/user|1/resume").json["data"]["nextFire"] is not None
        run_id = ask("POST", "/user|1/trigger").json["data"]["runId"]
        record = app.services().runs.read(run_id)
        assert record is not None
        assert (record.caller, record.call and record.call.params) == ("alice", {"deep": 1})
        assert app.work() == [run_id]
        [fire] = ask("GET", "/user|1/history").json["data"]["fires"]
        assert (fire["outcome"], fire["manual"]) == ("succeeded", True)

    def test_one_that_no_key_opens_is_told_as_such(
        self, ask: Ask, app: ScheduledApp, stored: StoredSchedules
    ) -> None:
        rows = app.store.database()[STORED]
        rows.update_one({"_id": "user|0"}, {"$set": {"call": b"spoiled"}})
        row = ask("GET").json["data"]["schedules"][2]
        assert (row["name"], row["params"], row["caller"]) == ("user|0", None, None)
        refused = ask("POST", "/user|0/trigger")
        assert refused.status_code == 410
        assert "user|0" in refused.json["error"]
        assert app.queued() == []

    def test_the_command_has_pages_too(self, app: ScheduledApp, stored: StoredSchedules) -> None:
        get_registry.cache_clear()
        run = CliRunner().invoke
        shown = run(main, ["schedules", "--limit", "2"], catch_exceptions=False)
        assert "user|1" in shown.output
        assert "callboard schedules --after user|1" in shown.output
        get_registry.cache_clear()
        shown = run(main, ["schedules", "--after", "user|1", "--json"], catch_exceptions=False)
        assert [row["name"] for row in json.loads(shown.output)] == ["user|2"]


class TestCommand:
    """On the schedules of ``actions/``."""

    @pytest.fixture
    def run(self, app: ScheduledApp) -> Callable[..., Result]:
        def invoke(*arguments: str) -> Result:
            get_registry.cache_clear()
            return CliRunner().invoke(main, ["schedules", *arguments], catch_exceptions=False)

        return invoke

    def test_shows_the_next_fire_in_both_times(self, run: Callable[..., Result]) -> None:
        output = run().output
        assert "every minute" in output
        assert "0 9 * * * America/New_York" in output
        digest = next(line for line in output.splitlines() if line.startswith("digest"))
        assert " 09:00:00 E" in digest  # EST or EDT

    def test_pauses_and_resumes(self, run: Callable[..., Result]) -> None:
        assert run("pause", "heartbeat").output == "heartbeat is paused\n"
        assert "paused" in run().output
        assert run("resume", "heartbeat").output.startswith("heartbeat fires next at ")
        assert "paused" not in run().output

    def test_triggers_and_shows_the_history(
        self, run: Callable[..., Result], app: ScheduledApp
    ) -> None:
        run_id = run("trigger", "heartbeat").output.strip()
        assert app.queued() == [run_id]
        assert run_id in run("history", "heartbeat").output

    def test_an_unknown_schedule_names_the_known(self, run: Callable[..., Result]) -> None:
        done = run("pause", "heartbeet")
        assert done.exit_code == 1
        assert "No schedule 'heartbeet'; declared: heartbeat, digest" in done.output
