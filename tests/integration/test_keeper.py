"""The keeper's parts, each by itself: real records, real forked children, a real database."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import pytest
import redis
from pymongo import MongoClient
from pymongo.database import Database
from scheduled_app import ScheduledApp

from callboard import ActionResult, action, ok
from callboard.connections import heartbeat
from callboard.connections.keys import Keys
from callboard.connections.mongodb import Store
from callboard.connections.redis import connect
from callboard.errors import BrokerUnavailable
from callboard.processes import threads
from callboard.registry import Registry
from callboard.runs.seal import CALL_LIFETIME, Call
from callboard.runs.store import Runs
from callboard.settings import Settings
from callboard.stack.ports import free_port
from worker.lease.fence import Fence
from worker.lease.heartbeat import Heartbeat
from worker.lease.held import HeldRuns
from worker.lease.keeper import Keeper
from worker.lease.renewing import Renewing
from worker.lease.sessions import Sessions
from worker.lease.slots import Slots
from worker.lease.stopping import Stopping
from worker.lease.sweeping import Sweeping
from worker.runs.execution import STOP_SIGNAL, _stoppable, install_stop_signal
from worker.runs.lifecycle import HandlerStopped, TimedOut
from worker.services import Services

KEYS = Keys()

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

Eventually = Callable[..., None]
LEASE = 15.0  # seconds


@action(timeout=30)
def long(ctx: Any) -> ActionResult:
    return ok()


@action(timeout=0.05)
def short(ctx: Any) -> ActionResult:
    return ok()


@action(timeout=0.05, on_worker_lost="fail")
def once(ctx: Any) -> ActionResult:
    return ok()


@dataclass
class Child:
    """A forked process that has a run in hand; ``said``: what its handler met."""

    pid: int
    run_id: str
    holder: str
    said: int  # a pipe
    reaped: bool = False

    def hears(self) -> str:
        return os.read(self.said, 100).decode()

    @property
    def is_dead(self) -> bool:
        if not self.reaped:
            self.reaped = os.waitpid(self.pid, os.WNOHANG)[0] != 0
        return self.reaped


@dataclass
class Loop(Child):
    """A loop process; `run_id` and `holder` are those of none of its runs."""

    run_ids: list[str] = field(default_factory=list)


class Worker:
    """A worker's main process: this one."""

    def __init__(self, settings: Settings, store: Store) -> None:
        actions = {one.name: one for one in (long, short, once)}
        self.services = Services(settings, Registry(actions=actions))
        self.services.store = store
        self.runs = self.services.runs
        self.redis = self.services.connect()
        self.slots = Slots(list(actions), 100)
        self.held = HeldRuns(
            self.services.scoreboard, [self.slots], actions, self.services.holder, LEASE
        )
        self.sessions = Sessions(self.services.store.database)
        self.stopping = Stopping(self.held, self.runs, self.sessions)
        self.renewing = Renewing(self.held, self.runs, LEASE)
        self.children: list[Child] = []

    def accept(self, what: Any = long) -> str:
        call = Call(caller="alice")
        return self.runs.accept(str(uuid4()), what, call, max_queue=99, result_ttl=60).run_id

    def child(self, what: Any = long, *, claims: bool = True, number: int = 1) -> Child:
        """One more, which has claimed a run of this action; as its so many-th."""
        run_id, scoreboard = self.accept(what), self.services.scoreboard
        self.redis.delete("callboard")
        scoreboard.pick_row()
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            install_stop_signal(self.services)
            scoreboard.begin()
            for _ in range(number):
                scoreboard.take(run_id, what.name)
            with handler(write):
                os.write(write, b"ready")
                signal.pause()
                signal.pause()
            os._exit(0)
        os.close(write)
        child = Child(pid, run_id, self.services.holder(pid, number), read)
        assert child.hears() == "ready"
        if claims:
            assert self.runs.claim(run_id, what.name, child.holder, LEASE).state == "claimed"
        self.children.append(child)
        return child

    def loop(self, *actions: Any) -> Loop:
        """A loop process, which has claimed a run of each of these actions."""
        run_ids = [self.accept(what) for what in actions]
        self.redis.delete("callboard")
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            signal.signal(STOP_SIGNAL, lambda *_: os.write(write, bytes(self.slots.to_stop())))
            for run_id, what in zip(run_ids, actions, strict=True):
                self.slots.take(run_id, what.name)
            os.write(write, b"ready")
            while True:
                signal.pause()
        os.close(write)
        self.slots.pid = pid
        loop = Loop(pid, "", "", read, run_ids=run_ids)
        assert loop.hears() == "ready"
        for number, (run_id, what) in enumerate(zip(run_ids, actions, strict=True), 1):
            self.runs.claim(run_id, what.name, self.services.holder(pid, number), LEASE)
        self.children.append(loop)
        return loop

    def statuses(self, loop: Loop) -> list[tuple[str, str | None, int]]:
        """Status, error and losses of its runs."""
        records = [self.runs.read(run_id) for run_id in loop.run_ids]
        return [(one.status, one.error, one.lost) for one in records if one]

    def lease(self, child: Child) -> int:
        return int(self.redis.hget(f"callboard:run:{child.run_id}", "lease") or 0)

    def end(self) -> None:
        for child in self.children:
            os.close(child.said)
            if not child.is_dead:
                os.kill(child.pid, signal.SIGKILL)
                os.waitpid(child.pid, 0)
        self.runs._pipelined.close()
        self.runs._redis.connection_pool.disconnect()
        self.redis.connection_pool.disconnect()


@contextmanager
def handler(write: int) -> Iterator[None]:
    """Where a handler runs; one that is stopped says so, and goes on."""
    try:
        with _stoppable():
            yield
    except HandlerStopped:
        os.write(write, b"stopped")
        signal.pause()
    except TimedOut:
        os.write(write, b"timed out")
        signal.pause()


@pytest.fixture
def worker(app: ScheduledApp) -> Iterator[Worker]:
    worker = Worker(app.settings, app.store)
    yield worker
    worker.end()


@pytest.fixture
def elsewhere(app: ScheduledApp) -> Runs:
    """Where a broker was."""
    changed = app.settings.model_copy(
        update={"redis_url": type(app.settings.redis_url)(f"redis://127.0.0.1:{free_port()}/0")}
    )
    return Runs(connect(changed), Services(app.settings, Registry(actions={})).sealer, KEYS)


@pytest.fixture
def database_away(app: ScheduledApp, monkeypatch: pytest.MonkeyPatch) -> None:
    app.move_database_away(monkeypatch)


class TestHolders:
    """A claim is whole: ``w:12:1`` is not ``w:12:10``."""

    @pytest.mark.parametrize("other", ["w:12:1", "w:12:", "w:1", "", "w:12:100"])
    def test_nobody_else_changes_a_run(self, worker: Worker, other: str) -> None:
        run_id = worker.accept()
        worker.runs.claim(run_id, "long", "w:12:10", LEASE)
        assert worker.runs.renew([(run_id, other)], LEASE) == ["taken"]
        assert not worker.runs.requeue(run_id, other)
        assert worker.runs.lose(run_id, other) == (-1, False)
        assert not worker.runs.note_session(run_id, other, str(uuid4()))
        assert worker.runs.renew([(run_id, "w:12:10")], LEASE) == ["held"]


class TestRenewing:
    def test_the_claims_of_all_children_are_extended(self, worker: Worker) -> None:
        children = [worker.child() for _ in range(3)]
        for child in children:
            worker.redis.hset(f"callboard:run:{child.run_id}", "lease", 1)
        worker.renewing.turn()
        assert all(worker.lease(child) > time.time() * 1000 for child in children)
        assert all(held.renewed for held in worker.held.all())

    def test_a_canceled_handler_is_stopped_softly_and_stays_held(self, worker: Worker) -> None:
        child = worker.child()
        worker.redis.hset(f"callboard:run:{child.run_id}", "cancel", 1)
        worker.renewing.turn()
        assert child.hears() == "stopped"
        [held] = worker.held.all()
        assert held.canceled
        assert held.stop_at < time.monotonic() + 5.1
        worker.renewing.turn()
        assert not child.is_dead

    def test_a_child_whose_run_is_anothers_is_killed(
        self, worker: Worker, eventually: Eventually
    ) -> None:
        child = worker.child()
        worker.renewing.turn()
        worker.redis.hset(f"callboard:run:{child.run_id}", "holder", "another:1:1")
        worker.renewing.turn()
        eventually(lambda: child.is_dead)
        assert worker.held.all() == []

    def test_a_child_that_is_about_to_claim_is_left_alone(self, worker: Worker) -> None:
        child = worker.child(claims=False)
        worker.runs.claim(child.run_id, "long", "another:1:1", LEASE)
        worker.renewing.turn()
        assert not child.is_dead

    def test_a_claim_that_the_same_child_made_before_is_another(self, worker: Worker) -> None:
        child = worker.child(claims=False, number=10)
        before = worker.services.holder(child.pid, 1)
        worker.runs.claim(child.run_id, "long", before, LEASE)
        worker.renewing.turn()
        assert [held.renewed for held in worker.held.all()] == [False]

    def test_a_broker_that_is_away_harms_no_child(self, worker: Worker, elsewhere: Runs) -> None:
        child = worker.child()
        with pytest.raises(BrokerUnavailable):
            Renewing(worker.held, elsewhere, LEASE).turn()
        assert not child.is_dead


class TestLoops:
    """A loop process has many runs in hand: what is done about one is not done to the others."""

    def test_the_claims_of_all_its_runs_are_extended(self, worker: Worker) -> None:
        worker.loop(long, once, long)
        worker.renewing.turn()
        assert [held.renewed for held in worker.held.all()] == [True] * 3

    def test_of_many_runs_those_come_first_whose_claims_lapse_first(self, worker: Worker) -> None:
        worker.loop(*[long] * 20)
        renewing = Renewing(worker.held, worker.runs, LEASE, at_once=8)
        for renewed in (8, 16, 20):
            renewing.turn()
            assert sum(held.renewed for held in worker.held.all()) == renewed

    def test_the_run_that_is_canceled_is_asked_to_stop(self, worker: Worker) -> None:
        loop = worker.loop(long, long, long)
        worker.redis.hset(f"callboard:run:{loop.run_ids[1]}", "cancel", 1)
        worker.renewing.turn()
        assert loop.hears() == chr(2)
        assert not loop.is_dead

    def test_the_run_that_is_anothers_is_asked_to_stop(self, worker: Worker) -> None:
        loop = worker.loop(long, long)
        worker.renewing.turn()
        worker.redis.hset(f"callboard:run:{loop.run_ids[0]}", "holder", "another:1:1")
        worker.renewing.turn()
        assert loop.hears() == chr(1)
        assert not loop.is_dead

    def test_it_is_given_time_to_stop_a_handler_by_itself(self, worker: Worker) -> None:
        worker.loop(short)
        [held] = worker.held.all()
        assert held.stop_at == pytest.approx(held.active.since + short.timeout + 5.0)

    def overdue(self, worker: Worker, loop: Loop, number: int) -> None:
        """Let the process not have stopped that one."""
        [held] = [one for one in worker.held.all() if one.run_id == loop.run_ids[number]]
        worker.held.note(held, stop_at=time.monotonic())
        worker.stopping.turn()

    def test_one_that_cannot_be_stopped_ends_and_the_others_are_handed_back(
        self, worker: Worker, eventually: Eventually
    ) -> None:
        loop = worker.loop(long, short, once)
        self.overdue(worker, loop, 1)
        eventually(lambda: loop.is_dead)
        assert worker.statuses(loop)[1] == ("failed", "Timed out after 0.05 s", 0)
        assert worker.statuses(loop)[0][0] == "running"
        worker.stopping.loop_died(worker.slots)
        handed_back, ended, must_not_start_twice = worker.statuses(loop)
        assert handed_back == ("queued", None, 0)
        assert ended == ("failed", "Timed out after 0.05 s", 0)
        assert must_not_start_twice == ("failed", "Worker lost", 0)

    def test_runs_of_one_that_died_by_itself_count_as_lost(self, worker: Worker) -> None:
        loop = worker.loop(long, once)
        os.kill(loop.pid, signal.SIGKILL)
        os.waitpid(loop.pid, 0)
        loop.reaped = True
        assert worker.held.all() == []
        worker.stopping.loop_died(worker.slots)
        assert worker.statuses(loop) == [("queued", None, 1), ("failed", "Worker lost", 1)]
        worker.stopping.loop_died(worker.slots)  # told twice, it happened once
        assert worker.statuses(loop)[0] == ("queued", None, 1)

    def test_a_worker_whose_loop_process_does_not_come_back_is_not_ready(
        self, worker: Worker
    ) -> None:
        key = f"{KEYS.worker}worker@here"
        shows = Heartbeat(worker.redis, key, ["callboard"], [worker.slots])
        for turn in range(4):
            shows.turn()
            assert bool(worker.redis.exists(key)) == (turn < 2)
        assert b"loop process" in worker.redis.get(KEYS.unready + key)
        worker.slots.pid = os.getpid()
        shows.turn()
        assert worker.redis.exists(key)

    def test_a_claim_that_cannot_be_renewed_ends_the_process(
        self, worker: Worker, eventually: Eventually
    ) -> None:
        loop = worker.loop(long, long)
        for held in worker.held.all():
            worker.held.note(held, lapses_at=time.monotonic())
        Fence(worker.held).turn()
        eventually(lambda: loop.is_dead)


class TestStopping:
    def test_an_overdue_run_ends_and_its_child_with_it(
        self, worker: Worker, eventually: Eventually
    ) -> None:
        overdue, other = worker.child(short), worker.child(long)
        eventually(lambda: worker.stopping.soonest() <= time.monotonic())
        worker.stopping.turn()
        record = worker.runs.read(overdue.run_id)
        assert record is not None
        assert (record.status, record.error) == ("failed", "Timed out after 0.05 s")
        eventually(lambda: overdue.is_dead)
        assert not other.is_dead
        assert [held.run_id for held in worker.held.all()] == [other.run_id]
        assert worker.stopping.child_died(overdue.pid) is not None  # for Celery's log
        record = worker.runs.read(overdue.run_id)
        assert record is not None
        assert record.status == "failed"  # it was not queued again

    @pytest.mark.usefixtures("database_away")
    def test_where_hooks_are_told_a_handler_is_asked_to_end_by_itself_first(
        self, worker: Worker, eventually: Eventually
    ) -> None:
        worker.held = HeldRuns(
            worker.services.scoreboard, [], worker.services.registry.actions,
            worker.services.holder, LEASE, patience=60.0,
        )  # fmt: skip
        worker.stopping = Stopping(worker.held, worker.runs, worker.sessions)
        child = worker.child(short)
        eventually(lambda: worker.stopping.soonest() <= time.monotonic())
        worker.stopping.turn()
        assert child.hears() == "timed out"
        assert worker.stopping.soonest() > time.monotonic() + 30
        worker.stopping.turn()
        record = worker.runs.read(child.run_id)
        assert record is not None
        assert (record.status, child.is_dead) == ("running", False)

        (held,) = worker.held.all()
        worker.held.note(held, stop_at=time.monotonic())
        worker.stopping.turn()
        eventually(lambda: child.is_dead)
        record = worker.runs.read(child.run_id)
        assert record is not None
        assert record.status == "failed"

    def test_a_database_that_is_away_delays_an_end_by_half_a_second(
        self, worker: Worker, eventually: Eventually
    ) -> None:
        children = [worker.child(short) for _ in range(8)]
        for child in children:
            worker.runs.note_session(child.run_id, child.holder, str(uuid4()))
        eventually(lambda: all(held.stop_at < time.monotonic() for held in worker.held.all()))
        started = time.monotonic()
        worker.stopping.turn()
        assert time.monotonic() - started < 3.5  # not half a second for each
        for child in children:
            eventually(lambda child=child: child.is_dead)
            record = worker.runs.read(child.run_id)
            assert record is not None
            assert record.status == "failed"

    @pytest.mark.parametrize("field", ["seal", "session"])
    def test_a_record_that_somebody_wrote_into_stops_nothing_but_itself(
        self, worker: Worker, eventually: Eventually, field: str
    ) -> None:
        first, second = worker.child(short), worker.child(short)
        worker.redis.hset(f"callboard:run:{first.run_id}", field, b"\xff\x00 broken")
        eventually(lambda: all(held.stop_at < time.monotonic() for held in worker.held.all()))
        worker.stopping.turn()
        eventually(lambda: first.is_dead)
        eventually(lambda: second.is_dead)
        record = worker.runs.read(second.run_id)
        assert record is not None
        assert record.status == "failed"
        assert worker.redis.hget(f"callboard:run:{first.run_id}", "status") == b"failed"

    def test_a_broker_that_is_away_leaves_the_child_to_the_fence(
        self, worker: Worker, elsewhere: Runs, eventually: Eventually
    ) -> None:
        child = worker.child(short)
        eventually(lambda: worker.stopping.soonest() <= time.monotonic())
        with pytest.raises(BrokerUnavailable):
            Stopping(worker.held, elsewhere, worker.sessions).turn()
        assert not child.is_dead

    def test_what_a_dead_child_had_in_hand_is_queued_again(
        self, worker: Worker, eventually: Eventually
    ) -> None:
        child = worker.child()
        os.kill(child.pid, signal.SIGKILL)
        eventually(lambda: child.is_dead)
        held = worker.stopping.child_died(child.pid)
        assert held is not None
        assert worker.held.of(child.pid) is None  # whoever has its id from now on is not stopped
        assert held.run_id == child.run_id
        record = worker.runs.read(child.run_id)
        assert record is not None
        assert (record.status, record.lost) == ("queued", 1)

    @pytest.mark.parametrize("anothers", [False, True])
    def test_the_transaction_of_a_dead_child_is_ended_until_the_database_has_done_it(
        self, worker: Worker, eventually: Eventually, anothers: bool
    ) -> None:
        """Others wait for its records; who claims the run next asks the database only once."""
        child, session = worker.child(), str(uuid4())
        assert worker.runs.note_session(child.run_id, child.holder, session)
        os.kill(child.pid, signal.SIGKILL)
        eventually(lambda: child.is_dead)
        if anothers:
            worker.redis.hset(f"callboard:run:{child.run_id}", "holder", "another:1:1")
        worker.stopping.child_died(child.pid)
        wanted = [one.session for one in worker.sessions._wanted]
        assert wanted == ([] if anothers else [session])

    def test_a_handler_that_must_not_start_twice_ends_with_its_child(self, worker: Worker) -> None:
        child = worker.child(once)
        [held] = worker.held.all()
        assert worker.held.kill(held)
        assert not worker.held.kill(held)
        assert worker.stopping.hand_back(held)
        record = worker.runs.read(child.run_id)
        assert record is not None
        assert (record.status, record.error) == ("failed", "Worker lost")

    def test_a_run_that_is_handed_back_was_not_lost(self, worker: Worker) -> None:
        child = worker.child()
        [held] = worker.held.all()
        assert worker.held.kill(held)
        assert worker.stopping.hand_back(held)
        record = worker.runs.read(child.run_id)
        assert record is not None
        assert (record.status, record.lost) == ("queued", 0)


class TestFence:
    def test_a_child_whose_claim_is_about_to_lapse_is_killed(
        self, worker: Worker, eventually: Eventually
    ) -> None:
        lapsing, other = worker.child(), worker.child()
        [held] = [held for held in worker.held.all() if held.pid == lapsing.pid]
        worker.held.note(held, lapses_at=time.monotonic() + 0.2)
        Fence(worker.held).turn()
        eventually(lambda: lapsing.is_dead)
        assert not other.is_dead


class TestSweeping:
    def test_a_lost_wake_up_is_sent_again(self, worker: Worker) -> None:
        run_id = worker.accept()
        worker.redis.delete("callboard")
        worker.redis.zadd("callboard:open", {run_id: 1})
        Sweeping(worker.runs).turn()
        assert worker.redis.llen("callboard") == 1

    def test_a_record_that_cannot_be_read_holds_no_other_up(self, worker: Worker) -> None:
        broken, late = worker.accept(), worker.accept()
        long_ago = int((time.time() - CALL_LIFETIME - 60) * 1000)
        for run_id, score in ((broken, 1), (late, 2)):
            worker.redis.hset(f"callboard:run:{run_id}", "enqueued", long_ago)
            worker.redis.zadd("callboard:open", {run_id: score})
        worker.redis.hset(f"callboard:run:{broken}", "seal", "broken")
        Sweeping(worker.runs).turn()
        assert worker.redis.hget(f"callboard:run:{late}", "status") == b"failed"


class TestSessions:
    @pytest.fixture
    def blocked(self, database: Database[dict[str, Any]]) -> Iterator[str]:
        """A session whose open transaction others wait for."""
        database["things"].insert_one({"_id": 1})
        with database.client.start_session() as session:
            session.start_transaction()
            database["things"].update_one({"_id": 1}, {"$set": {"n": 1}}, session=session)
            yield str(session.session_id["id"].as_uuid())

    def test_the_transactions_end_and_others_go_on(
        self, database: Database[dict[str, Any]], blocked: str
    ) -> None:
        sessions = Sessions(lambda: database)
        assert not sessions.end(["no session's id", blocked], 0.0)
        sessions.turn()
        started = time.monotonic()
        database["things"].update_one({"_id": 1}, {"$set": {"n": 2}})
        assert time.monotonic() - started < 10
        assert sessions.end([], 0.0)

    def test_what_could_not_be_ended_is_ended_when_the_database_is_back(
        self, database: Database[dict[str, Any]], blocked: str
    ) -> None:
        away = MongoClient[dict[str, Any]](
            f"mongodb://127.0.0.1:{free_port()}/", serverSelectionTimeoutMS=50
        )
        used = [away.get_database("away"), database]
        sessions = Sessions(lambda: used.pop(0))
        sessions.end([blocked], 0.0)
        sessions.turn()
        sessions.turn()
        assert used == []
        database["things"].update_one({"_id": 1}, {"$set": {"n": 2}})
        away.close()


class TestKeeper:
    @pytest.fixture
    def keeper(self, worker: Worker) -> Iterator[Keeper]:
        keeper = Keeper(worker.services, "worker@here")
        running = list(threads._supervised)
        yield keeper
        keeper.stop()
        for thread in set(threads._supervised) - set(running):
            thread.join(60)
        keeper._heartbeat._redis.connection_pool.disconnect()

    @pytest.mark.usefixtures("database_away")
    def test_no_database_and_a_run_that_is_overdue_cost_no_other_run_its_claim(
        self, worker: Worker, keeper: Keeper, eventually: Eventually
    ) -> None:
        others = [worker.child(long) for _ in range(2)]
        overdue = worker.child(short)
        worker.runs.note_session(overdue.run_id, overdue.holder, str(uuid4()))
        keeper.start()
        eventually(lambda: overdue.is_dead)
        for child in others:
            before = worker.lease(child)
            eventually(lambda child=child, before=before: worker.lease(child) > before)
            assert not child.is_dead

    def test_a_part_that_fails_is_told_by_the_heartbeat_and_goes_on(
        self,
        worker: Worker,
        keeper: Keeper,
        redis_client: redis.Redis,
        eventually: Eventually,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(threads, "SETTLED_SECONDS", 0.5)
        child = worker.child(long)
        renew, fails = keeper._renewing.turn, [KeyError("what")]

        def turn() -> None:
            if fails:
                raise fails.pop()
            renew()

        monkeypatch.setattr(keeper._renewing, "turn", turn)
        keeper.start()
        eventually(
            lambda: (
                heartbeat.unready(redis_client, KEYS.worker) == {"worker@here": "failed: renewing"}
            )
        )
        assert heartbeat.seen(redis_client, KEYS.worker) == []
        before = worker.lease(child)
        eventually(lambda: worker.lease(child) > before)
        eventually(lambda: heartbeat.seen(redis_client, KEYS.worker) == ["worker@here"])
        assert heartbeat.unready(redis_client, KEYS.worker) == {}

    def test_the_end_of_the_grace_hands_back_what_is_in_hand(
        self, worker: Worker, keeper: Keeper, eventually: Eventually
    ) -> None:
        child = worker.child(long)
        keeper._grace = 0.2
        keeper.start()
        keeper.drain()
        eventually(lambda: child.is_dead)
        keeper.stop()
        eventually(
            lambda: worker.redis.hget(f"callboard:run:{child.run_id}", "status") == b"queued"
        )
        assert worker.services.scoreboard.closed
