"""Schedules that handlers put: one run per planned fire, and nothing done for what is not due."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel
from scheduled_app import ScheduledApp

from callboard import (
    ActionContext,
    ActionResult,
    AsyncActionContext,
    Schedule,
    action,
    fail,
    ok,
)
from callboard.registry import Registry
from callboard.runs.seal import Call, Sealer
from callboard.schedules.fires import Fire, fire_id
from callboard.schedules.stored import STORED, StoredSchedules
from callboard.testing.inline import InlineCall

EACH_MINUTE = Schedule("digest:alice", "work", every_minutes=1)
CALL = Call(caller="alice", claims={"sub": "alice"}, params={"deep": 3})


class App:
    """A `ScheduledApp` and its stored schedules."""

    def __init__(self, app: ScheduledApp) -> None:
        self.app = app
        self.clock = app.clock
        self.sealer = Sealer(app.settings.secret_keys)
        self.stored = StoredSchedules(app.store.database, self.sealer)
        self.rows = app.store.database()[STORED]

    def put(self, schedule: Schedule = EACH_MINUTE, call: Call = CALL) -> None:
        self.stored.put(schedule, call, self.clock(), None)

    def history(self, name: str = EACH_MINUTE.name) -> list[Fire]:
        return self.app.history(name)

    def outcomes(self, name: str = EACH_MINUTE.name) -> list[str | None]:
        return self.app.outcomes(name)


@pytest.fixture
def own(app: ScheduledApp) -> App:
    return App(app)


class TestFires:
    def test_a_fire_runs_once_as_the_caller(self, own: App) -> None:
        beat = own.app.beat()
        own.put()
        own.clock.advance(minutes=1)
        beat.turn()
        run_id = fire_id(EACH_MINUTE.name, own.clock())
        record = own.app.services().runs.read(run_id)
        assert record is not None
        assert record.call is not None
        assert (record.caller, record.call.params, record.call.claims) == (
            "alice", {"deep": 3}, {"sub": "alice"},
        )  # fmt: skip
        assert own.app.work() == [run_id]
        [fire] = own.history()
        assert (fire.outcome, fire.attempts, fire.planned) == ("succeeded", 1, own.clock())
        beat.turn()
        assert own.app.queued() == []

    def test_three_beats_at_once_fire_once(self, own: App) -> None:
        beats = [own.app.beat() for _ in range(3)]
        for number in range(20):
            own.put(replace(EACH_MINUTE, name=f"s{number}"))
        own.clock.advance(minutes=1)
        with ThreadPoolExecutor(3) as pool:
            for _ in range(3):
                list(pool.map(lambda beat: beat.turn(), beats))
        assert len(own.app.work()) == 20
        own.clock.advance(minutes=1)
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda beat: beat.turn(), beats))
        assert len(own.app.work()) == 20

    def test_beside_a_declared_one(self, own: App) -> None:
        beat = own.app.beat(Schedule("s", "work", every_minutes=1))
        own.put()
        own.clock.advance(minutes=1)
        beat.turn()
        assert len(own.app.work()) == 2
        assert own.outcomes() == own.app.outcomes("s") == ["succeeded"]

    def test_a_row_that_its_beat_did_not_publish_is_anybodys(
        self, own: App, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        own.put()
        dying = own.app.beat()
        own.clock.advance(minutes=1)
        monkeypatch.setattr(dying._stored, "_publish", lambda *_: set())
        dying.turn()
        assert own.app.queued() == []
        other = own.app.beat()
        assert own.app.queued() == []
        own.clock.advance(seconds=6)
        other.turn()
        assert own.app.work() == [fire_id(EACH_MINUTE.name, own.history()[0].planned)]

    def test_a_run_that_redis_lost_before_it_started_runs(self, own: App) -> None:
        beat = own.app.beat()
        own.put()
        own.clock.advance(minutes=1)
        beat.turn()
        own.app.redis.flushdb()  # the test's own
        own.clock.advance(seconds=6)
        beat.turn()
        assert len(own.app.work()) == 1
        assert own.outcomes() == ["succeeded"]

    def test_one_that_started_and_left_no_trace_is_lost(self, own: App) -> None:
        beat = own.app.beat()
        own.put()
        own.clock.advance(minutes=1)
        beat.turn()
        acceptance = own.app.services().runs.read(own.app.queued()[0])
        assert acceptance is not None
        own.app.fires.take(own.app.queued()[0], str(acceptance.acceptance), 1, own.clock())
        own.app.redis.flushdb()  # the test's own
        own.clock.advance(seconds=20)
        beat.turn()
        assert own.outcomes() == [None]  # its handler may still be at work
        own.clock.advance(seconds=120)
        beat.turn()
        assert own.outcomes()[0] == "lost"

    def test_the_last_run_that_still_goes_on_skips_a_fire(self, own: App) -> None:
        beat = own.app.beat()
        own.put()
        own.put(replace(EACH_MINUTE, name="all", overlap="allow"))
        for _ in range(2):
            own.clock.advance(minutes=1)
            beat.turn()
        assert own.outcomes() == [None, "skipped"]
        assert own.outcomes("all") == [None, None]

    @pytest.mark.parametrize(("catch_up", "last"), [("last", None), ("none", "missed")])
    def test_what_no_beat_saw_is_noted_and_made_up_for_as_asked(
        self, own: App, catch_up: Any, last: str | None
    ) -> None:
        own.put(replace(EACH_MINUTE, catch_up=catch_up))
        own.clock.advance(minutes=500, seconds=30)
        own.app.beat()
        assert own.outcomes() == ["missed"] * 9 + [last]

    def test_a_full_queue_is_waited_for(self, own: App) -> None:
        own.app.settings = own.app.settings.model_copy(update={"max_queue": 2})
        beat = own.app.beat()
        for number in range(5):
            own.put(replace(EACH_MINUTE, name=f"s{number}", every_minutes=60))
        own.clock.advance(minutes=60)
        ran = 0
        for _ in range(4):
            beat.turn()
            ran += len(own.app.work())
            own.clock.advance(seconds=6)
        assert ran == 5

    def test_one_that_cannot_fire_costs_no_other(self, own: App) -> None:
        beat = own.app.beat()
        own.put(replace(EACH_MINUTE, name="gone", action="gone"))
        own.put(replace(EACH_MINUTE, name="spoiled"))
        own.rows.update_one({"_id": "spoiled"}, {"$set": {"call": b"spoiled"}})
        own.put()
        own.clock.advance(minutes=1)
        beat.turn()
        assert len(own.app.work()) == 1
        own.clock.advance(minutes=1)
        beat.turn()
        assert len(own.app.work()) == 1
        due = [row["_id"] for row in own.stored.due(own.clock() + timedelta(minutes=30), 10)]
        assert due == [EACH_MINUTE.name]

    def test_a_paused_one_does_not_fire_until_it_is_resumed(self, own: App) -> None:
        beat = own.app.beat()
        own.put()
        own.stored.pause(EACH_MINUTE.name, own.clock())
        own.clock.advance(minutes=3)
        beat.turn()
        own.put()  # again: it stays paused
        own.clock.advance(minutes=1)
        beat.turn()
        assert own.history() == []
        own.stored.resume(EACH_MINUTE.name, own.clock())
        own.clock.advance(minutes=1)
        beat.turn()
        assert len(own.app.work()) == 1

    def test_a_clock_that_was_ahead_is_followed_back(self, own: App) -> None:
        beat = own.app.beat()
        own.put()
        own.clock.advance(days=2)
        beat.turn()
        own.app.work()
        own.clock.advance(days=-2)
        beat.turn()
        own.clock.advance(minutes=1)
        beat.turn()
        assert len(own.app.work()) == 1

    def test_what_is_removed_with_a_fire_to_come_does_not_run(self, own: App) -> None:
        beat = own.app.beat()
        own.put()
        own.stored.remove(EACH_MINUTE.name, None)
        own.clock.advance(minutes=1)
        beat.turn()
        assert own.history() == []

    def test_nothing_is_read_of_what_is_not_due(self, own: App) -> None:
        """By what the database says that it has looked at."""
        own.app.beat()  # makes the indexes
        own.put()
        rows = [dict(own.rows.find_one({}, {"_id": 0}), _id=f"s{n}") for n in range(200)]
        later = own.clock() + timedelta(days=1)
        own.rows.insert_many([{**row, "nextFire": later} for row in rows])
        own.clock.advance(minutes=1)
        asked = own.rows.find({"nextFire": {"$lte": own.clock()}}).limit(500)
        assert "COLLSCAN" not in str(asked.explain()["queryPlanner"]["winningPlan"])
        assert [row["_id"] for row in own.stored.due(own.clock(), 500)] == [EACH_MINUTE.name]


class Params(BaseModel):
    deep: int


@action(internal=True)
def digest(ctx: ActionContext, params: Params) -> ActionResult:
    return ok()


@action(name="plain", anonymous=True)
def plain(ctx: ActionContext) -> ActionResult:
    return getattr(ctx.schedules, ctx.params["do"])(*ctx.params["to"], **ctx.params.get("with", {}))  # type: ignore[no-any-return]


@action(name="async", anonymous=True)
async def awaits(ctx: AsyncActionContext) -> ActionResult:
    call = getattr(ctx.schedules, ctx.params["do"])
    return await call(*ctx.params["to"], **ctx.params.get("with", {}))  # type: ignore[no-any-return]


@action(name="plainInTransaction", transaction=True)
def plain_in_transaction(ctx: ActionContext) -> ActionResult:
    ctx.schedules.put("t", "digest", every_minutes=5, params={"deep": 1}).unwrap()
    return ok() if ctx.params["well"] else fail("no")


@action(name="asyncInTransaction", transaction=True)
async def async_in_transaction(ctx: AsyncActionContext) -> ActionResult:
    (await ctx.schedules.put("t", "digest", every_minutes=5, params={"deep": 1})).unwrap()
    return ok() if ctx.params["well"] else fail("no")


ACTIONS = {
    one.name: one for one in (digest, plain, awaits, plain_in_transaction, async_in_transaction)
}
EACH = {"every_minutes": 5, "params": {"deep": 3}}
REFUSED: tuple[tuple[tuple[Any, ...], dict[str, Any], str], ...] = (
    (("d", "digst"), {}, "Did you mean 'digest'"),
    (("d", "digest"), {"params": {}}, "deep"),
    (("d", "digest"), {"params": 3}, "params"),
    (("", "digest"), {}, "a name is up to 255"),
    (("a/b", "digest"), {}, "not 'a/b'"),
    (("x" * 256, "digest"), {}, "a name is up to 255"),
    ((3, "digest"), {}, "not 3"),
    (("declared", "digest"), {}, "the name of a declared schedule"),
    (("d", "digest"), {"every_minutes": 0}, "every_minutes must be 1..10080"),
    (("d", "digest"), {"every_minutes": None}, "neither given"),
    (("d", "digest"), {"cron": "0 9 * * *", "timezone": "UTC"}, "both given"),
    (("d", "digest"), {"every_minutes": None, "cron": "0 9"}, "write 5 fields"),
    (("d", "digest"), {"catch_up": "all"}, "catch_up must be one of none, last"),
    (("d", "digest"), {"overlap": 3}, "overlap must be one of skip, allow"),
    (("d", "digest"), {"params": {"deep": 1, "x": "x" * 70_000}}, "at most 64 KiB"),
)


@pytest.fixture(params=["plain", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def ask(call: InlineCall, kind: str) -> Any:
    """``ask("put", "name", "digest", every_minutes=5)``, as alice."""
    declared = (Schedule("declared", "digest", every_minutes=1, params={"deep": 1}),)
    calls = replace(call, registry=Registry(actions=ACTIONS, schedules=declared))

    def ask(do: str, *to: Any, as_user: str | None = "alice", **more: Any) -> ActionResult:
        return calls(kind, {"do": do, "to": to, "with": more}, as_user=as_user)

    ask.calls = calls  # type: ignore[attr-defined]
    return ask


class TestHandlers:
    def test_what_is_put_is_told_until_it_is_removed(self, ask: Any) -> None:
        put = ask("put", "digest:alice", "digest", **EACH).unwrap()
        assert put["name"] == "digest:alice"
        found = ask("get", "digest:alice").unwrap()
        assert found == {
            "name": "digest:alice", "action": "digest", "everyMinutes": 5, "cron": None,
            "timezone": None, "params": {"deep": 3}, "caller": "alice", "catchUp": "last",
            "overlap": "skip", "paused": False, "lastFire": None, "nextFire": put["nextFire"],
        }  # fmt: skip
        assert ask("remove", "digest:alice") == ok({"removed": True})
        assert ask("remove", "digest:alice") == ok({"removed": False})
        assert ask("get", "digest:alice") == fail("Schedule not found", "not_found")

    def test_putting_it_again_changes_what_is_given(self, ask: Any) -> None:
        ask("put", "d", "digest", **EACH).unwrap()
        rows = ask.calls.database[STORED]
        rows.update_one(
            {"_id": "d"}, {"$set": {"lastFire": (before := rows.find_one())["through"]}}
        )
        ask("put", "d", "digest", **{**EACH, "params": {"deep": 4}}).unwrap()
        after = rows.find_one()
        assert (after["through"], after["lastFire"]) == (before["through"], before["through"])
        assert ask("get", "d").unwrap()["params"] == {"deep": 4}
        daily = {"cron": "0 9 * * *", "timezone": "Europe/Berlin", "params": {"deep": 4}}
        ask("put", "d", "digest", **daily).unwrap()
        changed = rows.find_one()
        assert changed["timing"] != before["timing"]
        assert changed["nextFire"] != before["nextFire"]
        assert rows.count_documents({}) == 1
        assert ask("get", "d").unwrap()["cron"] == "0 9 * * *"

    def test_nothing_of_it_is_stored_in_clear(self, ask: Any) -> None:
        ask("put", "d", "digest", **{**EACH, "params": {"deep": 3, "secret": "hunter2"}}).unwrap()
        row = str(ask.calls.database[STORED].find_one())
        assert "hunter2" not in row
        assert "alice" not in row

    def test_as_the_owner(self, ask: Any) -> None:
        ask("put", "d", "digest", as_owner=True, as_user=None, **EACH).unwrap()
        assert ask("get", "d").unwrap()["caller"] == "owner"

    def test_what_cannot_work_is_refused(self, ask: Any) -> None:
        for arguments, more, why in REFUSED:
            refused = ask("put", *arguments, **{**EACH, **more})
            assert not refused.success
            assert why in refused.error, arguments
        assert ask.calls.database[STORED].count_documents({}) == 0

    def test_nobody_has_no_schedule(self, ask: Any) -> None:
        refused = ask("put", "d", "digest", as_user=None, **EACH)
        assert "pass as_owner=True" in refused.error

    @pytest.mark.parametrize("well", [True, False])
    def test_it_commits_with_its_transaction(self, ask: Any, kind: str, well: bool) -> None:
        ask.calls(f"{kind}InTransaction", {"well": well})
        assert ask.calls.database[STORED].count_documents({}) == well


SPOILED: list[dict[str, Any]] = [
    *({"everyMinutes": value} for value in (0, -5, 10**9, 1.5, "text")),
    *({"everyMinutes": None, "cron": cron, "timezone": zone}
      for cron, zone in (("text", "UTC"), (7, "UTC"), ("* * * * *", "Gone/Zone"))),
    *({"call": value} for value in (None, 2**40, "text")),
    *({"through": value} for value in (None, 7, "text")),
    *({"pauses": value} for value in ([{"from": 1, "to": 2}], 7)),
]  # fmt: skip


def test_a_spoiled_one_holds_no_other_up(own: App) -> None:
    names = [f"spoiled{number}" for number in range(len(SPOILED))]
    for name, change in zip(names, SPOILED, strict=True):
        own.put(replace(EACH_MINUTE, name=name))
        own.rows.update_one({"_id": name}, {"$set": change})
    own.put()
    own.clock.advance(minutes=1)
    beat = own.app.beat()
    beat.turn(), beat.turn()
    assert len(own.history()) == 1
    assert not any(own.history(name) for name in names)
