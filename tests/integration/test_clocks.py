"""Wrong clocks, clocks that jump, and plans that such clocks have left: schedules fire on.

The database's clock is the real one here, or one that the test moves (`ScheduledApp.clock`); a
machine's own is handed in where `DatabaseClock` asks for it.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
import structlog.testing
from click.testing import CliRunner
from flask.testing import FlaskClient
from scheduled_app import MINUTE, ScheduledApp

from callboard import Schedule, clock
from callboard.cli.doctor import _clocks, doctor
from callboard.clock import ClockWatch, DatabaseClock, ahead_of_broker, deviation
from callboard.connections import heartbeat, mongodb
from callboard.connections.keys import Keys
from callboard.connections.mongodb import Client
from callboard.errors import ServiceUnavailable
from callboard.schedules.fires import Fire, fire_id
from worker.lease.heartbeat import Heartbeat
from worker.schedules.beat import Beat

KEYS = Keys()

BUSY = 4.0  # seconds by which a machine that is busy may measure wrongly
HOUR = timedelta(hours=1)
EACH_MINUTE = Schedule("s", "work", every_minutes=1)


def shifted(seconds: float) -> Callable[[], float]:
    """A machine's clock that is wrong."""
    return lambda: time.time() + seconds


def beat_with(app: ScheduledApp, seconds: float, *schedules: Schedule) -> Beat:
    """A beat on a machine whose clock is ahead."""
    now = DatabaseClock(app.store.database, local=shifted(seconds))
    return Beat(app.services(*schedules), f"off-{seconds:g}", now=now)


class CutProxy:
    """A way to the database that can be cut: the connection that was used last ends."""

    def __init__(self, uri: str) -> None:
        parts = urlsplit(uri)
        self._behind = parts.hostname, parts.port
        self._open: list[socket.socket] = []
        self._last: socket.socket | None = None  # which a client has sent something over
        self._server = socket.create_server(("127.0.0.1", 0))
        user = parts.netloc.rpartition("@")[0]
        host, port = self._server.getsockname()
        self.uri = parts._replace(netloc=f"{user}@{host}:{port}".removeprefix("@")).geturl()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> CutProxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """End it; its client learns that when it uses it next."""
        assert self._last is not None
        self._last.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                ahead = self._server.accept()[0]
                behind = socket.create_connection(self._behind)
                self._open += (ahead, behind)
                for pair in ((ahead, behind, ahead), (behind, ahead, None)):
                    threading.Thread(target=self._pipe, args=pair, daemon=True).start()

    def _pipe(
        self, source: socket.socket, target: socket.socket, client: socket.socket | None
    ) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                self._last = client or self._last
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)
        source.close()


class TestDatabaseClock:
    @pytest.mark.parametrize("seconds", [0.0, 7200.0, -7200.0, 86_400 * 400.0])
    def test_it_tells_the_databases_time_whatever_this_machines_clock_says(
        self, app: ScheduledApp, seconds: float
    ) -> None:
        asked = DatabaseClock(app.store.database, local=shifted(seconds))
        assert abs((asked() - datetime.now(UTC)).total_seconds()) < BUSY
        assert asked.ahead == pytest.approx(seconds, abs=BUSY)

    def test_a_connection_that_was_cut_is_no_failure(
        self, mongodb_uri: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        patient = partial(mongodb.guarded, 30.0)  # a busy machine may need longer
        monkeypatch.setattr("callboard.clock.mongodb.guarded", patient)
        with CutProxy(mongodb_uri) as proxy, Client(proxy.uri, lambda client: None) as client:
            asked = DatabaseClock(lambda: client["any"])
            for _ in range(2):
                asked()
                proxy.cut()
                assert abs((asked() - datetime.now(UTC)).total_seconds()) < BUSY

    def test_so_does_the_brokers(self, redis_client: redis.Redis) -> None:
        assert ahead_of_broker(redis_client, shifted(-60)) == pytest.approx(-60, abs=BUSY)

    @pytest.mark.parametrize(
        ("ahead", "said"),
        [(0.0, None), (5.0, None), (-5.0, None), (5.1, "5.1 s ahead"), (-7200, "7200.0 s behind")],
    )
    def test_more_than_five_seconds_are_off(self, ahead: float, said: str | None) -> None:
        assert deviation(ahead) == said

    def test_the_log_is_told_once_a_minute_and_when_it_is_over(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        watch = ClockWatch("database")
        with structlog.testing.capture_logs() as lines:
            for ahead in (0.0, 60.0, 60.0, 60.0):
                watch.note(ahead)
            monkeypatch.setattr(clock, "AGAIN_SECONDS", 0.0)
            watch.note(60.0)
            watch.note(0.0)
            watch.note(0.0)
        assert [line.get("by") for line in lines] == ["60.0 s ahead", "60.0 s ahead", None]


class TestABeatWhoseClockIsOff:
    @pytest.mark.parametrize("seconds", [7200.0, -7200.0, 86_400 * 3.0])
    def test_it_plans_nothing_ahead_and_hides_no_fire(
        self, app: ScheduledApp, seconds: float
    ) -> None:
        off = beat_with(app, seconds, EACH_MINUTE)
        off.turn()
        off.turn()
        through = app.schedules.states()["s"].through
        assert abs((through - datetime.now(UTC)).total_seconds()) < 5
        assert app.rows().count_documents({"plannedAt": {"$gt": datetime.now(UTC)}}) == 0
        make_due(app)
        right = beat_with(app, 0.0, EACH_MINUTE)
        right.turn()
        assert len(app.work()) == 1

    def test_a_due_fire_is_met_by_it_too(self, app: ScheduledApp) -> None:
        """Where no other beat runs, a wrong clock costs no fire; nor does its call expire."""
        off = beat_with(app, -86_400 * 2, EACH_MINUTE)
        off.turn()
        make_due(app)
        off.turn()
        assert len(app.work()) == 1
        assert "succeeded" in app.outcomes()

    def test_it_says_so(self, app: ScheduledApp) -> None:
        with structlog.testing.capture_logs() as lines:
            off = beat_with(app, 7200.0, EACH_MINUTE)
            off.turn()
            off.turn()
        [said] = [line["by"] for line in lines if "by" in line]
        assert float(said.removesuffix(" s ahead")) == pytest.approx(7200, abs=BUSY)
        [sign] = heartbeat.signs(app.redis, KEYS.beat).values()
        assert sign == {"ahead": pytest.approx(7200, abs=BUSY)}


def make_due(app: ScheduledApp) -> None:
    """Let a minute begin since the last plan."""
    through = app.schedules.states()["s"].through
    earlier = through.replace(second=0, microsecond=0) - timedelta(seconds=1)
    app.store.database()["_schedules"].update_one({"_id": "s"}, {"$set": {"through": earlier}})


class TestAPlanThatAWrongClockHasLeft:
    def plan_ahead(self, app: ScheduledApp, ahead: timedelta) -> None:
        """As a beat does whose clock says so."""
        app.clock.moment += ahead
        app.beat(EACH_MINUTE)
        app.clock.moment -= ahead

    def test_the_schedules_fire_on(self, app: ScheduledApp) -> None:
        beat = app.beat(EACH_MINUTE)
        self.plan_ahead(app, 2 * HOUR)
        assert len(app.history()) == 120
        app.work()
        beat.turn()
        assert app.schedules.states()["s"].through == app.clock()
        for _ in range(3):
            app.clock.advance(minutes=1)
            beat.turn()
            assert fire_id("s", app.clock()) in app.work()
        on_time = [fire.outcome for fire in app.history() if fire.planned <= app.clock()]
        assert on_time == ["succeeded"] * 3

    def test_a_fire_that_has_had_its_run_has_no_second_one(self, app: ScheduledApp) -> None:
        beat = app.beat(EACH_MINUTE)
        self.plan_ahead(app, 5 * MINUTE)
        [early] = app.work()
        assert early == fire_id("s", app.clock() + 5 * MINUTE)
        started = []
        for _ in range(6):
            beat.turn()
            app.clock.advance(minutes=1)
            beat.turn()
            started += app.work()
        assert early not in started
        assert len(started) == 5

    @pytest.mark.parametrize("field", ["through", "nextFire"])
    def test_nothing_that_is_stored_silences_a_schedule(
        self, app: ScheduledApp, field: str
    ) -> None:
        beat = app.beat(EACH_MINUTE)
        far = app.clock() + timedelta(days=3000)
        app.store.database()["_schedules"].update_one({"_id": "s"}, {"$set": {field: far}})
        beat.turn()
        app.clock.advance(minutes=1)
        beat.turn()
        assert len(app.work()) == 1

    def test_nor_does_a_pause_that_has_ended_in_the_future(self, app: ScheduledApp) -> None:
        beat = app.beat(EACH_MINUTE)
        app.schedules.pause(EACH_MINUTE, app.clock() + HOUR)
        app.schedules.resume(EACH_MINUTE, app.clock() + 2 * HOUR)
        beat.turn()
        app.clock.advance(minutes=1)
        beat.turn()
        assert len(app.work()) == 1

    def test_a_pause_that_begins_in_the_future_holds_from_now_on(self, app: ScheduledApp) -> None:
        beat = app.beat(EACH_MINUTE)
        app.schedules.pause(EACH_MINUTE, app.clock() + HOUR)
        beat.turn()
        app.clock.advance(minutes=2)
        beat.turn()
        assert app.work() == []
        assert app.schedules.states()["s"].paused

    def test_the_last_fire_is_one_that_was(self, app: ScheduledApp) -> None:
        beat = app.beat(EACH_MINUTE)
        app.clock.advance(minutes=1)
        beat.turn()
        self.plan_ahead(app, 2 * HOUR)
        beat.turn()
        assert app.schedules.states()["s"].last_fire == app.clock()

    def test_a_row_of_a_beat_that_died_with_a_wrong_clock_is_published(
        self, app: ScheduledApp
    ) -> None:
        beat = app.beat(EACH_MINUTE)
        planned = app.clock()
        row = Fire(
            run_id=fire_id("s", planned), schedule="s", planned=planned, created=planned + HOUR
        )
        app.fires.insert(row)
        beat.turn()
        assert app.work() == [row.run_id]


class TestTheDatabasesClockJumps:
    """Another primary, or its machine was set right, while a beat runs."""

    def test_back(self, app: ScheduledApp) -> None:
        beat = app.beat(EACH_MINUTE)
        for _ in range(3):
            app.clock.advance(minutes=1)
            beat.turn()
            app.work()
        app.clock.advance(minutes=-2)
        beat.turn()
        assert app.work() == []  # the two minutes come again: their fires have had their runs
        for _ in range(3):
            app.clock.advance(minutes=1)
            beat.turn()
        assert len(app.work()) == 1
        assert app.outcomes() == ["succeeded"] * 4

    def test_back_by_a_moment(self, app: ScheduledApp) -> None:
        """Two beats never measure quite the same: nothing is planned anew for that."""
        beat = app.beat(EACH_MINUTE)
        app.clock.advance(minutes=1)
        beat.turn()
        before = app.history()
        app.clock.advance(seconds=-4)
        beat.turn()
        assert [fire.planned for fire in app.history()] == [fire.planned for fire in before]
        assert len(app.work()) == 1
        app.clock.advance(seconds=5)
        beat.turn()
        assert app.work() == []

    def test_ahead_and_back(self, app: ScheduledApp) -> None:
        beat = app.beat(EACH_MINUTE)
        app.clock.advance(hours=2)
        beat.turn()
        assert len(app.work()) == 1
        app.clock.advance(hours=-2)
        beat.turn()
        for _ in range(3):
            app.clock.advance(minutes=1)
            beat.turn()
            assert len(app.work()) == 1


class TestWhatIsKept:
    def test_a_beat_remembers_no_fire_that_has_ended(self, app: ScheduledApp) -> None:
        """Also where the run is over before the beat looks again."""
        beat = app.beat(EACH_MINUTE)
        for _ in range(20):
            app.clock.advance(minutes=1)
            beat.turn()
            app.work()
        beat.turn()
        assert beat._planned == set()

    def test_rules_of_a_zone_that_changed_count_at_once(self, app: ScheduledApp) -> None:
        """As a new version of the zones' rules: what was stored by the old ones is not asked."""
        daily = Schedule("s", "work", cron="0 12 * * *", timezone="Europe/Berlin")
        app.clock.moment = datetime(2026, 7, 1, 9, 0, tzinfo=UTC)
        app.beat(daily)
        wrong = datetime(2026, 7, 1, 11, 0, tzinfo=UTC)  # by the rules of winter
        app.store.database()["_schedules"].update_one({"_id": "s"}, {"$set": {"nextFire": wrong}})
        app.clock.moment = datetime(2026, 7, 1, 10, 0, tzinfo=UTC)
        app.beat(daily)
        assert [fire.planned for fire in app.history()] == [app.clock()]


class TestReadiness:
    def test_an_api_whose_clock_is_off_is_not_ready(
        self, api: Callable[..., FlaskClient], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        client = api()
        assert client.get("/readyz").status_code == 200
        real = ahead_of_broker
        monkeypatch.setattr(
            "api.telemetry.health.ahead_of_broker", lambda r: real(r, shifted(7200.0))
        )
        assert client.get("/readyz").status_code == 200  # the broker's clock is wrong, not ours
        monkeypatch.setattr(
            "api.telemetry.health.DatabaseClock", lambda d: DatabaseClock(d, local=shifted(7200.0))
        )
        response = client.get("/readyz")
        assert response.status_code == 503
        assert re.search(r"7(199|20\d)\.\d s ahead", response.json["error"])

    def test_a_worker_tells_by_how_much_it_is_off(self, redis_client: redis.Redis) -> None:
        Heartbeat(redis_client, f"{KEYS.worker}worker@here", ["callboard"]).turn()
        [sign] = heartbeat.signs(redis_client, KEYS.worker).values()
        assert abs(sign["ahead"]) < BUSY
        assert sign["queues"] == ["callboard"]


@pytest.mark.usefixtures("app")
class TestDoctor:
    def test_clocks_that_agree(self, redis_client: redis.Redis) -> None:
        heartbeat.show(redis_client, f"{KEYS.worker}a", '{"ahead": 0.4}', 60)
        heartbeat.show(redis_client, f"{KEYS.beat}old", "", 60)  # of a version before
        assert _clocks().startswith("agree within 0.4")

    @pytest.mark.parametrize("key", [f"{KEYS.worker}far", f"{KEYS.beat}far"])
    def test_each_that_is_off_is_named(self, redis_client: redis.Redis, key: str) -> None:
        heartbeat.show(redis_client, key, json.dumps({"ahead": -61.5}), 60)
        with pytest.raises(ServiceUnavailable, match=r"far .* is 61\.5 s behind"):
            _clocks()

    def test_a_beat_that_is_not_ready_is_named(
        self, app: ScheduledApp, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*_: Any) -> None:
            raise KeyError("what")

        monkeypatch.setattr("worker.schedules.beat.ALIVE_SECONDS", 60)  # doctor takes a while
        beat = app.beat(EACH_MINUTE)
        assert heartbeat.seen(redis_client, KEYS.beat) == ["beat"]
        monkeypatch.setattr(beat, "_states", broken)
        for _ in range(2):
            with pytest.raises(KeyError):
                beat.turn()
            assert heartbeat.seen(redis_client, KEYS.beat) == []
        told = CliRunner().invoke(doctor, ["--data-dir", "/nonexistent"]).output
        assert "not ready: beat beat failed: KeyError" in told
        monkeypatch.undo()
        beat.turn()
        beat.turn()
        assert heartbeat.seen(redis_client, KEYS.beat) == ["beat"]
