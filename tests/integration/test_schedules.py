"""Schedules: one run per planned fire, whatever dies; on real servers and a clock of the test's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from scheduled_app import MINUTE, STARTED, ScheduledApp, work

from actions.digest import daily_digest
from actions.items import heartbeat
from callboard import Schedule
from callboard.connections.keys import Keys
from callboard.errors import DatabaseUnavailable, QueueFull
from callboard.runs.counters import Times, read_counts
from callboard.runs.history import History
from callboard.runs.outbox import Outbox
from callboard.runs.outcome import Outcome
from callboard.runs.store import Runs
from callboard.schedules.fires import FIRES, KEPT_ROWS, KEPT_SECONDS, Fire, Fires, fire_id
from callboard.schedules.state import Schedules
from callboard.settings import Settings
from callboard.stack.ports import free_port
from worker.archive.archiver import Archiver
from worker.schedules.beat import Beat
from worker.schedules.planning import plan_fires
from worker.schedules.scheduler import ActionScheduler
from worker.tools.tools import Tools

KEYS = Keys()

EACH_MINUTE = Schedule("s", "work", every_minutes=1)


class TestOnce:
    def test_a_fire_runs_and_its_row_tells_how(self, app: ScheduledApp) -> None:
        beat = app.beat(EACH_MINUTE)
        assert app.history() == []
        app.clock.advance(minutes=1)
        beat.turn()
        assert app.work() == [fire_id("s", app.clock())]
        [fire] = app.history()
        assert (fire.planned, fire.manual, fire.attempts) == (app.clock(), False, 1)
        assert fire.outcome == "succeeded"
        assert fire.started is not None
        assert fire.completed is not None
        assert fire.published is not None
        beat.turn()
        assert app.queued() == []

    def test_the_run_is_the_owners(self, app: ScheduledApp) -> None:
        beat = app.beat(Schedule("s", "work", every_minutes=1, params={"deep": 3}))
        app.clock.advance(minutes=1)
        beat.turn()
        record = app.services().runs.read(app.queued()[0])
        assert record is not None
        assert record.call is not None
        assert (record.caller, record.call.jwt) == ("owner", None)
        assert record.call.params == {"deep": 3}
        assert record.call.scheduled

    def test_three_beats_at_once_fire_once(self, app: ScheduledApp) -> None:
        beats = [app.beat(EACH_MINUTE) for _ in range(3)]
        with ThreadPoolExecutor(3) as pool:
            for _ in range(10):
                app.clock.advance(minutes=1)
                list(pool.map(lambda beat: beat.turn(), beats))
                assert app.work() == [fire_id("s", app.clock())]
        assert app.outcomes() == ["succeeded"] * 10

    def test_a_beat_that_died_before_it_published_is_stood_in_for(self, app: ScheduledApp) -> None:
        other = app.beat(EACH_MINUTE)
        app.clock.advance(minutes=1)
        died_after_planning(app)
        other.turn()
        app.clock.advance(seconds=4)
        other.turn()
        assert app.queued() == []  # it might be at it still
        app.clock.advance(seconds=1)
        other.turn()
        assert len(app.work()) == 1
        assert app.outcomes() == ["succeeded"]

    def test_a_beat_that_died_before_it_marked_the_row_repeats_nothing(
        self, app: ScheduledApp
    ) -> None:
        other = app.beat(EACH_MINUTE)
        app.clock.advance(minutes=1)
        other.turn()
        app.rows().update_many({}, {"$unset": {"publishedAt": ""}})
        app.clock.advance(seconds=6)
        other.turn()
        assert len(app.queued()) == 1
        assert len(app.work()) == 1

    @pytest.mark.parametrize("when", ["before", "after"])
    @pytest.mark.parametrize(
        ("owner", "step"),
        [(Schedules, "plan"), (Fires, "prune"), (Runs, "accept"), (Fires, "mark_published")],
    )
    def test_wherever_a_beat_dies_another_goes_on(
        self, app: ScheduledApp, monkeypatch: pytest.MonkeyPatch, owner: type, step: str, when: str
    ) -> None:
        dying, other = app.beat(EACH_MINUTE), app.beat(EACH_MINUTE)
        app.clock.advance(minutes=1)
        with monkeypatch.context() as patch:
            patch.setattr(owner, step, deadly(getattr(owner, step), when))
            with pytest.raises(Died):
                dying.turn()
        other.turn()
        app.clock.advance(seconds=6)
        other.turn()
        assert app.work() == [app.history()[0].run_id]
        assert app.outcomes() == ["succeeded"]

    def test_a_stale_plan_is_refused(self, app: ScheduledApp) -> None:
        """A beat that slept between looking and planning does not plan what another did."""
        stale = app.beat(EACH_MINUTE)
        state = app.schedules.states()["s"]
        app.clock.advance(minutes=1)
        stale.turn()
        before = app.history()
        moment = app.clock() + timedelta(hours=1)
        fire = Fire(run_id="late", schedule="s", planned=moment, created=moment)
        assert app.schedules.plan(EACH_MINUTE, state, [fire], app.clock()) == []
        assert app.history() == before


class Died(BaseException):
    """Stands for the end of the process."""


def deadly(step: Callable[..., Any], when: str) -> Callable[..., Any]:
    """The step, and the end of its process ``before`` or ``after`` it."""

    def run(*arguments: Any, **options: Any) -> None:
        if when == "after":
            step(*arguments, **options)
        raise Died

    return run


class TestLossOfRedis:
    def test_a_fire_that_no_worker_had_started_runs_once_nevertheless(
        self, app: ScheduledApp
    ) -> None:
        beat = fired(app)
        app.redis.flushdb()
        app.clock.advance(seconds=6)
        beat.turn()
        assert len(app.work()) == 1
        assert app.outcomes() == ["succeeded"]

    def test_a_fire_that_was_started_does_not_run_again(self, app: ScheduledApp) -> None:
        beat = fired(app)
        [run_id] = app.queued()
        assert app.fires.take(run_id, "an acceptance", 1, app.clock())
        app.redis.flushdb()
        app.clock.advance(seconds=6)
        beat.turn()
        assert app.outcomes() == [None]  # its handler may still be at work
        app.clock.advance(seconds=work.timeout)
        beat.turn()
        assert app.outcomes() == ["lost"]
        assert app.queued() == []

    def test_a_fire_that_had_its_run_is_dropped_by_the_worker(self, app: ScheduledApp) -> None:
        """A beat that slept publishes it again, after all record of the run is gone."""
        fired(app)
        [run_id] = app.work()
        app.redis.flushdb()
        app.publisher(EACH_MINUTE).publish(EACH_MINUTE, run_id, app.clock())
        assert app.queued() == [run_id]
        assert app.work() == []
        assert app.outcomes() == ["succeeded"]

    def test_of_two_acceptances_one_runs(self, app: ScheduledApp) -> None:
        """Even while the row is open: the first to take it has it for good."""
        fired(app)
        [run_id] = app.queued()
        assert app.fires.take(run_id, "the first acceptance", 1, app.clock())
        assert app.work() == []
        assert app.outcomes() == [None]
        assert app.fires.take(run_id, "the first acceptance", 2, app.clock())


class TestEnds:
    def test_the_end_that_a_worker_could_not_note_is_noted_by_a_beat(
        self, app: ScheduledApp
    ) -> None:
        beat = fired(app)
        [run_id] = app.work()
        app.rows().update_one(
            {"_id": run_id}, {"$set": {"open": True}, "$unset": {"outcome": "", "completedAt": ""}}
        )
        beat.turn()
        [fire] = app.history()
        assert (fire.outcome, fire.attempts) == ("succeeded", 1)
        assert fire.completed is not None

    def test_a_canceled_fire_is_not_published_again(self, app: ScheduledApp) -> None:
        """Not even when its record is gone before a beat looks: the history of runs knows."""
        beat = fired(app)
        [run_id] = app.queued()
        services = app.services()
        services.runs.cancel(run_id, "work", Outcome.canceled(run_id))
        database, sealer = services.store.database, services.sealer
        Archiver(services, History(database, sealer), Outbox(database, sealer), 30).turn()
        app.redis.delete(f"callboard:run:{run_id}", "callboard")
        app.clock.advance(seconds=10)
        beat.turn()
        assert app.outcomes() == ["canceled"]
        assert app.queued() == []

    def test_a_lost_run_that_is_started_again_opens_its_fire(self, app: ScheduledApp) -> None:
        fired(app)
        [run_id] = app.queued()
        runs = app.services().runs
        runs.claim(run_id, "work", "holder", 10)
        record = runs.read(run_id)
        assert record is not None
        acceptance = record.acceptance
        assert acceptance is not None
        app.fires.take(run_id, acceptance, 1, app.clock())
        lost = Outcome.failed("Worker lost", run_id, retryable=True)
        runs.finish(run_id, "work", "holder", lost)
        app.beat(EACH_MINUTE)
        assert app.outcomes() == ["failed"]
        assert runs.retry(record, record.call)
        assert app.work() == [run_id]
        assert app.outcomes() == ["succeeded"]


class TestLateness:
    """From the planned time to the first start, counted once for each fire."""

    def test_a_fire_counts_with_what_its_row_tells(self, app: ScheduledApp) -> None:
        fired(app)
        app.work()
        [fire] = app.history()
        assert fire.started is not None
        late = max((fire.started - fire.planned) // timedelta(milliseconds=1), 0)
        assert starts(app) == 1
        assert counted(app)["s"].sum == late

    def test_three_beats_and_a_fire_that_is_published_again_count_once(
        self, app: ScheduledApp
    ) -> None:
        beats = [app.beat(EACH_MINUTE) for _ in range(3)]
        for _ in range(4):
            app.clock.advance(minutes=1)
            with ThreadPoolExecutor(len(beats)) as pool:
                list(pool.map(Beat.turn, beats))
            app.work()
        [last] = STARTED[-1:]
        app.redis.delete(f"callboard:run:{last}")
        app.publisher(EACH_MINUTE).publish(EACH_MINUTE, last, app.clock())
        assert app.work() == []
        assert starts(app) == 4

    def test_a_second_attempt_of_a_fire_is_not_late_again(self, app: ScheduledApp) -> None:
        fired(app)
        [run_id] = app.queued()
        record = app.services().runs.read(run_id)
        assert record is not None
        acceptance = record.acceptance
        assert acceptance is not None
        assert app.fires.take(run_id, acceptance, 1, app.clock())
        assert app.work() == [run_id]
        assert starts(app) == 0

    def test_what_a_person_triggers_is_never_late(self, app: ScheduledApp) -> None:
        app.beat(EACH_MINUTE)
        app.publisher(EACH_MINUTE).trigger(EACH_MINUTE, app.clock())
        assert len(app.work()) == 1
        assert starts(app) == 0


def counted(app: ScheduledApp) -> Mapping[str, Times]:
    return read_counts(app.redis, KEYS, []).late


def starts(app: ScheduledApp) -> int:
    return sum(sum(times.counts) for times in counted(app).values())


class TestOverlap:
    def test_skip_leaves_a_fire_out_while_the_last_run_goes_on(self, app: ScheduledApp) -> None:
        beat = fired(app)
        app.clock.advance(minutes=1)
        beat.turn()
        assert len(app.work()) == 1
        app.clock.advance(minutes=1)
        beat.turn()
        assert len(app.work()) == 1
        assert app.outcomes() == ["succeeded", "skipped", "succeeded"]

    def test_allow_starts_it_nevertheless(self, app: ScheduledApp) -> None:
        beat = app.beat(Schedule("s", "work", every_minutes=1, overlap="allow"))
        for _ in range(2):
            app.clock.advance(minutes=1)
            beat.turn()
        assert len(app.work()) == 2


class TestCatchUp:
    """No beat runs for five minutes and a half."""

    def away(self, app: ScheduledApp, **options: object) -> Schedule:
        schedule = Schedule("s", "work", every_minutes=1, **options)  # type: ignore[arg-type]
        app.beat(schedule)
        app.clock.advance(minutes=5, seconds=30)
        return schedule

    def test_none_runs_nothing(self, app: ScheduledApp) -> None:
        app.beat(self.away(app, catch_up="none"))
        assert app.work() == []
        assert app.outcomes() == ["missed"] * 5

    def test_a_fire_that_is_a_moment_late_was_not_missed(self, app: ScheduledApp) -> None:
        schedule = self.away(app, catch_up="none")
        app.clock.advance(seconds=33)
        app.beat(schedule)
        assert len(app.work()) == 1
        assert app.outcomes() == ["missed"] * 5 + ["succeeded"]

    def test_last_runs_the_last_one(self, app: ScheduledApp) -> None:
        app.beat(self.away(app))
        assert app.work() == [fire_id("s", app.clock() - timedelta(seconds=30))]
        assert app.outcomes() == ["missed"] * 4 + ["succeeded"]

    def test_all_runs_each_and_one_after_the_other(self, app: ScheduledApp) -> None:
        beat = app.beat(self.away(app, catch_up="all"))
        for _ in range(5):
            assert len(app.queued()) == 1
            assert len(app.work()) == 1
            beat.turn()
        assert app.outcomes() == ["succeeded"] * 5
        assert [fire_id("s", fire.planned) for fire in app.history()] == STARTED

    def test_all_at_once_where_runs_may_overlap(self, app: ScheduledApp) -> None:
        app.beat(self.away(app, catch_up="all", overlap="allow"))
        assert len(app.work()) == 5

    def test_at_most_a_thousand(self, app: ScheduledApp) -> None:
        schedule = self.away(app, catch_up="none")
        app.clock.advance(days=2)
        app.beat(schedule)
        assert len(app.history()) == KEPT_ROWS

    def test_not_further_back_than_the_first_sight(self, app: ScheduledApp) -> None:
        app.clock.advance(days=1)
        app.beat(self.away(app, catch_up="all"))
        assert len(app.history()) == 5


class TestPause:
    def test_a_paused_schedule_does_not_fire_and_a_restart_does_not_resume_it(
        self, app: ScheduledApp
    ) -> None:
        app.beat(EACH_MINUTE)
        app.schedules.pause(EACH_MINUTE, app.clock())
        app.clock.advance(minutes=3)
        app.beat(EACH_MINUTE)
        assert app.schedules.states()["s"].paused
        app.schedules.resume(EACH_MINUTE, app.clock())
        app.beat(EACH_MINUTE).turn()
        assert app.history() == []
        app.clock.advance(minutes=1)
        app.beat(EACH_MINUTE)
        assert len(app.work()) == 1

    def test_pausing_twice_is_pausing_once(self, app: ScheduledApp) -> None:
        app.beat(EACH_MINUTE)
        for _ in range(2):
            app.schedules.pause(EACH_MINUTE, app.clock())
        app.schedules.resume(EACH_MINUTE, app.clock())
        assert not app.schedules.states()["s"].paused
        app.schedules.resume(EACH_MINUTE, app.clock())

    def test_what_was_missed_before_a_pause_is_in_the_history(self, app: ScheduledApp) -> None:
        schedule = Schedule("s", "work", every_minutes=1, catch_up="none")
        app.beat(schedule)
        app.clock.advance(minutes=2, seconds=30)
        app.schedules.pause(schedule, app.clock())
        app.clock.advance(minutes=2)
        app.schedules.resume(schedule, app.clock())
        app.clock.advance(minutes=1)
        app.beat(schedule)
        assert app.outcomes() == ["missed"] * 3  # two before it, one after

    def test_the_code_may_declare_a_schedule_as_paused(self, app: ScheduledApp) -> None:
        paused = Schedule("s", "work", every_minutes=1, paused=True)
        app.beat(paused)
        assert app.schedules.states()["s"].paused
        app.schedules.resume(paused, app.clock())
        app.beat(paused)
        assert not app.schedules.states()["s"].paused  # by hand, and the code did not change
        app.beat(EACH_MINUTE)
        app.beat(paused)
        assert app.schedules.states()["s"].paused


class TestChangesOfTheCode:
    def test_a_changed_time_counts_from_now(self, app: ScheduledApp) -> None:
        app.beat(EACH_MINUTE)
        app.clock.advance(hours=3)
        hourly = Schedule("s", "work", every_minutes=60)
        app.beat(hourly)
        assert app.history() == []
        assert app.schedules.states()["s"].through == app.clock()

    def test_an_entry_that_is_gone_disappears_and_its_history_stays(
        self, app: ScheduledApp
    ) -> None:
        fired(app)
        app.work()
        app.beat(Schedule("other", "work", every_minutes=1))
        assert list(app.schedules.states()) == ["other"]
        assert app.outcomes() == ["succeeded"]

    def test_a_beat_of_older_code_does_not_stop_a_new_entry(self, app: ScheduledApp) -> None:
        beat = app.beat(EACH_MINUTE)
        app.beat()  # its code has no entry, so it takes the entry for gone
        beat.turn()
        app.clock.advance(minutes=1)
        beat.turn()
        assert len(app.work()) == 1


class TestTrigger:
    def test_runs_now_paused_or_not(self, app: ScheduledApp) -> None:
        app.beat(Schedule("s", "work", every_minutes=1, paused=True))
        run_id = app.publisher(EACH_MINUTE).trigger(EACH_MINUTE, app.clock())
        assert app.work() == [run_id]
        [fire] = app.history()
        assert (fire.manual, fire.outcome, fire.run_id) == (True, "succeeded", run_id)

    def test_a_trigger_that_was_refused_does_not_run_later(self, app: ScheduledApp) -> None:
        app.settings = Settings(CALLBOARD_MAX_QUEUE="1")
        app.publisher(EACH_MINUTE).trigger(EACH_MINUTE, app.clock())
        with pytest.raises(QueueFull):
            app.publisher(EACH_MINUTE).trigger(EACH_MINUTE, app.clock())
        assert len(app.history()) == 1

    def test_one_whose_publisher_died_is_published_by_a_beat(self, app: ScheduledApp) -> None:
        beat = app.beat(EACH_MINUTE)
        app.publisher(EACH_MINUTE).trigger(EACH_MINUTE, app.clock())
        app.redis.flushdb()
        app.rows().update_many({}, {"$unset": {"publishedAt": ""}})
        app.clock.advance(seconds=6)
        beat.turn()
        assert len(app.work()) == 1


class TestKeeping:
    def test_rows_are_kept_thirty_days(self, app: ScheduledApp) -> None:
        app.beat(EACH_MINUTE)
        kept = [
            index["expireAfterSeconds"]
            for index in app.store.database()[FIRES].list_indexes()
            if "expireAfterSeconds" in index
        ]
        assert kept == [KEPT_SECONDS]

    def test_or_a_thousand_of_a_schedule(self, app: ScheduledApp) -> None:
        beat = app.beat(Schedule("s", "work", every_minutes=1, catch_up="none"))
        app.clock.advance(hours=17)
        beat.turn()
        app.clock.advance(minutes=2)
        beat.turn()
        assert len(app.rows().distinct("_id")) == KEPT_ROWS
        assert app.history()[-1].planned == app.clock()


class TestOutages:
    def test_a_full_queue_delays_a_fire(self, app: ScheduledApp, variables: dict[str, str]) -> None:
        app.settings = Settings(**{**variables, "CALLBOARD_MAX_QUEUE": "1"})
        both = (EACH_MINUTE, Schedule("t", "work", every_minutes=1))
        beat = app.beat(*both)
        app.clock.advance(minutes=1)
        beat.turn()
        assert len(app.work()) == 1
        app.clock.advance(seconds=6)
        beat.turn()
        assert len(app.work()) == 1

    @pytest.mark.parametrize("away", ["broker", "database"])
    def test_the_scheduler_tries_again_each_second(
        self, app: ScheduledApp, away: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if away == "broker":
            app.settings = Settings(REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")
        else:
            app.move_database_away(monkeypatch)
        celery = Celery(set_as_current=False)
        celery.services = app.services(EACH_MINUTE)
        with closing(ActionScheduler(celery)) as scheduler:
            assert scheduler.tick() == 1.0

    def test_whatever_a_turn_raises_the_scheduler_goes_on(
        self, app: ScheduledApp, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*_: object) -> None:
            raise KeyError("what")

        celery = Celery(set_as_current=False)
        celery.services = app.services(EACH_MINUTE)
        with closing(ActionScheduler(celery)) as scheduler:
            with monkeypatch.context() as patch:
                patch.setattr(Fires, "open", broken)
                assert scheduler.tick() == 1.0
            assert scheduler.tick() <= 1.0
        assert list(app.schedules.states()) == ["s"]

    def test_a_schedule_that_fails_costs_no_other_a_fire(
        self, app: ScheduledApp, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        beat = app.beat(Schedule("bad", "work", every_minutes=1), EACH_MINUTE)
        plan = Schedules.plan

        def breaks(self: Schedules, schedule: Schedule, *rest: Any) -> list[Fire]:
            if schedule.name == "bad":
                raise KeyError("what")
            return plan(self, schedule, *rest)

        monkeypatch.setattr(Schedules, "plan", breaks)
        app.clock.advance(minutes=1)
        beat.turn()
        assert app.work() == [fire_id("s", app.clock())]

    def test_a_worker_without_the_database_does_not_start_the_handler(
        self, app: ScheduledApp, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fired(app)

        def unavailable(*_: object) -> None:
            raise DatabaseUnavailable("away")

        monkeypatch.setattr("worker.runs.execution.take_fire", unavailable)
        assert app.work() == []
        monkeypatch.undo()


class TestExamples:
    """What ``actions/schedules.py`` runs."""

    def test_the_heartbeat_notes_its_run(self, make_tools: Callable[..., Tools]) -> None:
        tools = make_tools(user_id="owner")
        for run_id in ("first", "second"):
            context: Any = SimpleNamespace(tools=tools, run_id=run_id)
            assert heartbeat(context).success
        record = tools.get("settings", "global").unwrap()["record"]
        assert record["data"] == {"lastRun": "second"}

    def test_the_digest_keeps_what_the_integration_wrote(
        self, make_tools: Callable[..., Tools]
    ) -> None:
        tools = make_tools(user_id="owner")
        tools.create("users", {"displayName": "Ada"}, "ada")
        context: Any = SimpleNamespace(tools=tools, run_id="run")
        assert daily_digest(context).success
        data = tools.get("digests", "run").unwrap()["record"]["data"]
        assert data["users"] == 1
        assert data["text"]["endpoint"] == "openai/chat-completion"
        assert "Ada" in data["text"]["data"]["messages"][0]["content"]


def fired(app: ScheduledApp) -> Beat:
    """A beat that has just published a fire of `EACH_MINUTE`."""
    beat = app.beat(EACH_MINUTE)
    app.clock.advance(minutes=1)
    beat.turn()
    assert len(app.queued()) == 1
    return beat


def died_after_planning(app: ScheduledApp) -> None:
    """A beat that plans what is due and dies."""
    state, now = app.schedules.states()["s"], app.clock()
    rows = plan_fires(EACH_MINUTE, [state.through + MINUTE], now, busy=False)
    assert app.schedules.plan(EACH_MINUTE, state, rows, now) == rows
