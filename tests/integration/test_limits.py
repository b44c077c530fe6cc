"""Limits: how many runs of a key are in their handlers at once, and how many start in how long."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
import redis
from ended_runs import done, lost
from flask.testing import FlaskClient
from pydantic import BaseModel

from callboard import ActionContext, ActionResult, Limit, action, ok
from callboard.connections.keys import Keys
from callboard.errors import LimitKeyFailed, QueueFull
from callboard.runs import message
from callboard.runs.commands import Wait
from callboard.runs.counters import read_counts
from callboard.runs.format import LIMITED, START
from callboard.runs.outcome import Outcome
from callboard.runs.record import RunRecord
from callboard.runs.scripts import LOOK_AGAIN_MS
from callboard.runs.seal import CALL_LIFETIME, Call
from callboard.runs.start import Start, Terms
from callboard.runs.store import Accepted, Claim, Runs
from callboard.sdk.action import Action
from worker.lease.releasing import Releasing

KEYS = Keys()
HOUR = 3_600_000  # milliseconds
MANY = 100_000


class Job(BaseModel):
    tenant: Any = "acme"


def handler(ctx: ActionContext, params: Job) -> ActionResult:
    return ok()


def limited(limit: Limit | None) -> Action:
    return action("work", limit=limit)(handler)


class Worker:
    """The runs of the action ``work``, and what a worker does with them."""

    def __init__(self, runs: Runs, client: redis.Redis, limit: Limit | None) -> None:
        self.runs = runs
        self.redis = client
        self.action = limited(limit)
        self.running: list[str] = []

    def accept(
        self, caller: str | None = "alice", max_queue: int = MANY, params: Any = None, **terms: Any
    ) -> str:
        call = Call(caller=caller, params=params or {})
        given: dict[str, Any] = {"max_queue": max_queue, "result_ttl": 60}
        given["terms"] = Terms(**terms) if terms else None
        return self.runs.accept(str(uuid4()), self.action, call, **given).run_id

    def claim(self, run_id: str, lease: float = 60.0, holder: str = "w:1") -> Claim:
        return self.runs.claim(run_id, "work", holder, lease)

    def take(self) -> str | None:
        """Take the next message, as a child does, and start its run; None: there is none."""
        run_id = self.next_message()
        if run_id is None:
            return None
        assert self.claim(run_id).state == "claimed"
        self.running.append(run_id)
        return run_id

    def next_message(self) -> str | None:
        """The run that the next message is for."""
        text = self.redis.rpop("callboard")
        read = message.read(text) if text else None
        return read[0].run_id if read else None

    def end(self, run_id: str, outcome: Callable[[str], Outcome] = done) -> None:
        self.running.remove(run_id)
        assert self.runs.finish(run_id, "work", "w:1", outcome(run_id))

    def start_all(self) -> list[str]:
        """Take whatever there is."""
        started = []
        while run_id := self.take():
            started.append(run_id)
        return started

    def read(self, run_id: str) -> RunRecord:
        record = self.runs.read(run_id)
        assert record is not None
        return record

    def status(self, run_id: str) -> str:
        return self.read(run_id).status

    def make_due(self, *run_ids: str) -> None:
        """As if their time had come."""
        self.redis.zadd(KEYS.due, dict.fromkeys(run_ids, 1))
        self.runs.release(500, MANY)

    def look(self) -> None:
        """As if it were time to look at all limits again."""
        for name in self.redis.zrange(KEYS.limited, 0, -1):
            self.redis.zadd(KEYS.limited, {name: 1})
        self.runs.admit(500)

    def tables(self) -> list[bytes]:
        """The keys that are there for limits."""
        return self.redis.keys("callboard:limit:*") + self.redis.keys(KEYS.limited)


Make = Callable[..., Worker]


@pytest.fixture
def make(runs: Runs, redis_client: redis.Redis) -> Make:
    def make(**options: Any) -> Worker:
        return Worker(runs, redis_client, Limit(**options) if options else None)

    return make


class TestConcurrency:
    def test_what_waited_for_a_group_and_is_to_be_tried_again_waits_for_its_time(
        self, make: Make
    ) -> None:
        worker = make(concurrency=1)
        run_id = worker.accept(join="g", size=0)
        assert worker.start_all() == [run_id]
        assert worker.runs.requeue(run_id, "w:1", 60.0)
        waits = worker.read(run_id).waiting_for
        assert waits is not None
        assert waits["kind"] == "time"

    def test_what_is_over_waits_without_a_message_and_in_its_order(self, make: Make) -> None:
        worker = make(concurrency=2)
        ids = [worker.accept() for _ in range(6)]
        assert worker.start_all() == ids[:2]
        assert [worker.status(i) for i in ids] == ["running"] * 2 + ["waiting"] * 4
        assert worker.read(ids[2]).waiting_for == {"kind": "slot"}
        assert worker.redis.zcard(KEYS.open) == 2
        worker.end(ids[1])
        assert worker.start_all() == [ids[2]]
        worker.end(ids[2])
        worker.end(ids[0])
        assert worker.start_all() == ids[3:5]
        for run_id in ids[3:5]:
            worker.end(run_id)
        assert worker.start_all() == ids[5:]
        worker.end(ids[5])
        assert worker.tables() == []

    def test_one_of_a_key_stands_in_the_queue(self, make: Make) -> None:
        worker = make(concurrency=50, key="caller")
        alice = [worker.accept("alice") for _ in range(40)]
        bob = worker.accept("bob")
        assert worker.redis.llen("callboard") == 2
        assert [worker.take() for _ in range(3)] == [alice[0], bob, alice[1]]

    @pytest.mark.parametrize("key", [None, "caller", lambda params: params.tenant])
    def test_the_key_tells_what_is_counted_together(self, make: Make, key: Any) -> None:
        worker = make(concurrency=1, key=key)
        calls = [("alice", "x"), ("alice", "y"), ("bob", "x"), (None, "z"), (None, "x")]
        ids = [worker.accept(caller, params={"tenant": tenant}) for caller, tenant in calls]
        waiting = [n for n, run_id in enumerate(ids) if worker.status(run_id) == "waiting"]
        if key is None:
            assert waiting == [1, 2, 3, 4]
        elif key == "caller":
            assert waiting == [1, 4]
        else:
            assert waiting == [2, 4]
        names = b"".join(worker.tables())
        assert b"alice" not in names
        assert b":x" not in names

    @pytest.mark.parametrize("tenant", [7, None, "x" * 1001])
    def test_a_key_that_is_no_text_refuses_the_call_and_says_why(
        self, make: Make, tenant: Any
    ) -> None:
        worker = make(concurrency=1, key=lambda params: params.tenant)
        with pytest.raises(LimitKeyFailed, match="'work' has no key for this call: it answered"):
            worker.accept(params={"tenant": tenant})

    def test_a_key_that_raises_refuses_its_own_start_only(self, make: Make) -> None:
        worker = make(concurrency=1, key=lambda params: {"a": "b"}[params.tenant])
        starts = [
            Start(
                run_id=str(uuid4()),
                action=worker.action,
                call=Call(caller="alice", params={"tenant": tenant}),
            )
            for tenant in "axa"
        ]
        answers = worker.runs.accept_many(starts, max_queue=9, result_ttl=60)
        assert isinstance(answers[1], LimitKeyFailed)
        assert "KeyError was raised" in str(answers[1])
        accepted = [answer for answer in answers if isinstance(answer, Accepted)]
        assert [worker.status(one.run_id) for one in accepted] == ["queued", "waiting"]

    @pytest.mark.parametrize("error", [SystemExit, GeneratorExit])
    def test_a_key_that_would_end_the_process_refuses_the_call(
        self, make: Make, error: type[BaseException]
    ) -> None:
        def key(params: Any) -> str:
            raise error

        worker = make(concurrency=1, key=key)
        with pytest.raises(LimitKeyFailed, match=f"{error.__name__} was raised"):
            worker.accept(params={"tenant": "a"})

    def test_a_line_is_as_long_as_a_queue_may_be(self, make: Make) -> None:
        worker = make(concurrency=1, key="caller")
        ids = [worker.accept(max_queue=3) for _ in range(4)]
        with pytest.raises(QueueFull, match="3 runs wait for a slot of 'work'"):
            worker.accept(max_queue=3)
        assert worker.status(worker.accept("bob", max_queue=3)) == "queued"
        later = worker.accept(max_queue=3, delay=HOUR)  # takes no place as long as it is not due
        assert worker.read(later).waiting_for == {"kind": "time", "until": worker.read(later).due}
        assert worker.start_all()[0] == ids[0]
        worker.end(ids[0])
        worker.accept(max_queue=3)


class TestEnds:
    """Whatever ends a run, or makes it wait, gives its slot to the next."""

    @pytest.fixture
    def worker(self, make: Make) -> Worker:
        return make(concurrency=1)

    def test_a_canceled_run_in_the_queue(self, worker: Worker) -> None:
        first, second = worker.accept(), worker.accept()
        worker.runs.cancel(first, "work", Outcome.canceled(first))
        assert worker.status(second) == "queued"

    def test_a_canceled_run_that_waits(self, worker: Worker) -> None:
        first, second, third = (worker.accept() for _ in range(3))
        worker.runs.cancel(second, "work", Outcome.canceled(second))
        assert worker.status(second) == "canceled"
        assert worker.redis.zscore(KEYS.due, second) is None
        worker.take()
        worker.end(first)
        assert worker.start_all() == [third]

    def test_a_run_that_is_lost_keeps_its_slot_until_it_ends(self, worker: Worker) -> None:
        first, second = worker.accept(), worker.accept()
        for _ in range(2):
            assert worker.claim(first).is_held
            assert worker.runs.lose(first, "w:1")[1] is False
            assert worker.status(second) == "waiting"
        assert worker.claim(first).is_held
        assert worker.runs.lose(first, "w:1") == (3, True)
        assert worker.runs.finish(first, "work", "w:1", lost(first))
        assert worker.status(second) == "queued"

    def test_a_lapsed_claim_is_taken_over_with_its_slot(self, worker: Worker) -> None:
        first, second = worker.accept(), worker.accept()
        assert worker.claim(first, lease=0.0).is_held
        worker.redis.hset(KEYS.run(first), "lease", 1)
        taken = worker.claim(first, holder="w:2")
        assert (taken.state, taken.lost) == ("claimed", 1)
        assert worker.status(second) == "waiting"
        assert worker.runs.finish(first, "work", "w:2", done(first))
        assert worker.status(second) == "queued"

    def test_a_run_that_expires(self, worker: Worker) -> None:
        first, second = worker.accept(), worker.accept()
        worker.runs.expire(first, "work", Outcome.failed("Expired", first))
        assert worker.status(second) == "queued"

    def test_a_run_between_two_attempts_has_no_slot(self, worker: Worker) -> None:
        first, second = worker.accept(), worker.accept()
        assert worker.take() == first
        assert worker.runs.requeue(first, "w:1", 60.0)
        record = worker.read(first)
        assert (record.status, record.waiting_for) == (
            "waiting",
            {"kind": "time", "until": record.due},
        )
        assert worker.take() == second
        worker.make_due(first)
        assert worker.read(first).waiting_for == {"kind": "slot"}
        assert worker.read(first).enqueued == record.enqueued

    def test_a_stopped_worker_hands_its_run_back_with_its_slot(self, worker: Worker) -> None:
        first, second = worker.accept(), worker.accept()
        assert worker.claim(first).is_held
        assert worker.runs.requeue(first, "w:1")
        assert [worker.status(first), worker.status(second)] == ["queued", "waiting"]
        assert worker.claim(first).attempt == 2

    def test_a_run_that_is_started_again_waits_in_its_order(self, worker: Worker) -> None:
        first, second = worker.accept(), worker.accept()
        worker.take()
        worker.end(first, lost)
        assert worker.runs.retry(worker.read(first), Call(caller="alice"))
        assert [worker.status(first), worker.status(second)] == ["waiting", "queued"]
        assert worker.start_all()[-1] == second
        worker.end(second)
        assert worker.start_all() == [first]

    def test_one_that_is_due_waits_in_its_order(self, worker: Worker) -> None:
        later, first, second = worker.accept(delay=HOUR), worker.accept(), worker.accept()
        worker.make_due(later)
        assert worker.read(later).waiting_for == {"kind": "slot"}
        for run_id in (first, second, later):
            assert worker.start_all() == [run_id]
            worker.end(run_id)

    def test_one_that_waited_for_a_group_waits_for_a_slot(self, worker: Worker) -> None:
        child, other = worker.accept(group="g", size=1), worker.accept()
        then = worker.accept(join="g", size=1)
        assert worker.read(then).waiting_for == {"kind": "group"}
        worker.take()
        worker.end(child)
        assert worker.read(then).waiting_for == {"kind": "slot"}
        assert worker.start_all() == [other]

    def test_one_whose_handler_waits_has_no_slot(self, worker: Worker) -> None:
        first, second, third = (worker.accept() for _ in range(3))
        assert worker.take() == first
        self.park(worker, first)
        assert worker.status(first) == "waiting"
        assert worker.take() == second
        worker.make_due(first)
        assert worker.read(first).waiting_for == {"kind": "slot"}
        for before, after in [(second, third), (third, first)]:
            worker.end(before)
            assert worker.start_all() == [after]
        assert worker.redis.hget(KEYS.run(first), "v") == str(LIMITED).encode()

    def test_one_whose_handler_waits_for_what_has_come_keeps_it(self, worker: Worker) -> None:
        first, second = worker.accept(), worker.accept()
        assert worker.take() == first
        self.park(worker, first, due=0)
        assert [worker.status(first), worker.status(second)] == ["queued", "waiting"]
        assert worker.take() == first

    @staticmethod
    def park(worker: Worker, run_id: str, due: int = 9_999_999_999_999) -> None:
        wait = Wait(kind="time", name="nap", due=due, left=0.0)
        worker.running.remove(run_id)
        assert worker.runs.park(run_id, "work", "w:1", Call(caller="alice"), wait, 0.0)

    def test_one_that_waits_for_longer_than_a_call_lives_expires(self, worker: Worker) -> None:
        first, second = worker.accept(), worker.accept()
        worker.redis.hset(KEYS.run(second), "enqueued", 1)
        due = worker.redis.zscore(KEYS.due, second)
        assert due is not None
        assert due >= worker.read(first).enqueued + CALL_LIFETIME * 1000
        worker.make_due(second)
        assert worker.runs.sweep() == [(second, "work")]
        worker.runs.expire(second, "work", Outcome.failed("Expired", second))
        assert worker.status(second) == "failed"
        worker.take()
        worker.end(first)
        assert worker.tables() == []


class TestRate:
    def test_so_many_start_in_a_window(self, make: Make) -> None:
        worker = make(rate="2/hour")
        ids = [worker.accept() for _ in range(5)]
        assert worker.start_all() == ids[:2]
        worker.end(ids[0])
        worker.look()
        assert worker.take() is None
        assert worker.read(ids[2]).waiting_for == {"kind": "slot"}
        self.pass_time(worker, HOUR)
        worker.look()
        assert worker.start_all() == ids[2:4]

    def test_it_is_looked_at_when_the_window_has_moved_on(self, make: Make) -> None:
        worker = make(rate="1/second")
        first, second = worker.accept(), worker.accept()
        assert worker.start_all() == [first]
        [(_, at)] = worker.redis.zrange(KEYS.limited, 0, -1, withscores=True)
        started = worker.read(first).started
        assert started is not None
        assert at == started + 1000
        self.pass_time(worker, 1000)
        worker.redis.zincrby(KEYS.limited, -1000, worker.redis.zrange(KEYS.limited, 0, 0)[0])
        assert worker.runs.admit(500) == 1
        assert worker.start_all() == [second]

    def test_a_run_that_ends_unstarted_counts_for_nothing(self, make: Make) -> None:
        worker = make(rate="1/hour")
        first, second = worker.accept(), worker.accept()
        worker.runs.cancel(first, "work", Outcome.canceled(first))
        worker.redis.delete("callboard")
        assert worker.status(second) == "queued"

    def test_each_attempt_counts(self, make: Make) -> None:
        worker = make(rate="2/hour")
        first, second = worker.accept(), worker.accept()
        assert worker.claim(first).is_held
        assert worker.runs.requeue(first, "w:1", 60.0)
        assert worker.claim(second).is_held
        worker.make_due(first)
        assert worker.read(first).waiting_for == {"kind": "slot"}

    def test_its_table_expires(self, make: Make) -> None:
        worker = make(rate="1/hour", key="caller")
        run_id = worker.accept()
        worker.take()
        worker.end(run_id)
        [table] = worker.tables()
        assert 0 < worker.redis.pttl(table) <= HOUR

    @pytest.mark.parametrize("key", [None, "caller"])
    def test_no_window_has_more_wherever_it_begins(
        self, make: Make, eventually: Callable[..., None], key: Any
    ) -> None:
        rate = 20
        worker = make(rate=f"{rate}/second", key=key)
        ids = [worker.accept() for _ in range(3 * rate)]
        releasing = Releasing(worker.runs, MANY)
        started: list[str] = []

        def go_on() -> bool:
            releasing.turn()
            started.extend(worker.start_all())
            return len(started) == len(ids)

        eventually(go_on)
        assert started == ids
        times = [worker.read(run_id).started or 0 for run_id in started]
        assert all(times[n + rate] - times[n] >= 1000 for n in range(len(times) - rate))

    @staticmethod
    def pass_time(worker: Worker, ms: int) -> None:
        """As if the starts had been so much earlier."""
        for table in worker.redis.keys("callboard:limit:starts:*"):
            for start in worker.redis.zrange(table, 0, -1):
                worker.redis.zincrby(table, -ms, start)


class TestDeploys:
    def test_the_limit_is_that_of_the_worker_that_started_last(self, make: Make) -> None:
        worker = make(concurrency=1)
        ids = [worker.accept() for _ in range(8)]
        assert worker.start_all() == ids[:1]
        worker.runs.set_limits({"work": "3 0 0"})
        worker.runs.admit(500)
        assert worker.start_all() == ids[1:3]
        worker.runs.set_limits({"work": "2 0 0"})
        worker.end(ids[0])
        assert worker.start_all() == []
        worker.end(ids[1])
        assert worker.start_all() == [ids[3]]
        worker.runs.set_limits({})
        worker.runs.admit(500)
        assert worker.start_all() == ids[4:]

    def test_a_worker_tells_its_limits_once(self, make: Make) -> None:
        worker = make(concurrency=1)
        ids = [worker.accept() for _ in range(4)]
        older = Releasing(worker.runs, MANY, {"work": "3 0 0", "gone": "1 0 0"})
        newer = Releasing(worker.runs, MANY, {"work": "2 0 0"})
        for releasing in (older, newer, older):
            releasing.turn()
        assert worker.redis.hgetall(KEYS.limits) == {b"work": b"2 0 0", b"gone": b"0 0 0"}
        assert worker.start_all() == ids[:3]  # the third was admitted while three were allowed

    def test_a_redis_that_lost_its_data_knows_the_limit_from_the_next_call(
        self, make: Make
    ) -> None:
        worker = make(concurrency=1)
        worker.runs.set_limits({"work": "1 0 0"})
        for _ in range(3):
            worker.accept()
        worker.take()
        worker.redis.delete(*worker.redis.keys("callboard*"))
        worker.running.clear()
        first, second = worker.accept(), worker.accept()
        assert worker.start_all() == [first]
        worker.end(first)
        assert worker.start_all() == [second]

    def test_a_limit_that_is_new_to_redis_is_that_of_the_call(self, make: Make) -> None:
        worker = make(concurrency=2)
        worker.accept()
        assert worker.redis.hgetall(KEYS.limits) == {b"work": b"2 0 0"}

    def test_an_older_worker_leaves_its_runs(self, make: Make) -> None:
        worker = make(concurrency=1)
        run_id, later = worker.accept(), worker.accept(delay=HOUR)
        for one in (run_id, later):
            assert worker.redis.hget(KEYS.run(one), "v") == str(LIMITED).encode()
        assert LIMITED > START
        assert worker.read(run_id).status == "queued"

    def test_what_an_older_program_ended_gives_its_slot_back(self, make: Make) -> None:
        worker = make(concurrency=1)
        first, second = worker.accept(), worker.accept()
        worker.redis.hset(KEYS.run(first), "status", "canceled")
        worker.look()
        assert worker.status(second) == "queued"

    def test_a_run_whose_slot_was_lost_takes_another(self, make: Make) -> None:
        worker = make(concurrency=1)
        first, second = worker.accept(), worker.accept()
        worker.redis.delete("callboard:limit:slots:work:-")
        assert worker.claim(first).state == "early"  # behind the one that waits
        worker.look()
        for run_id in (second, first):
            assert worker.claim(run_id).state == "claimed"
            assert worker.runs.finish(run_id, "work", "w:1", done(run_id))

    @pytest.mark.parametrize(
        "key", [*(f"callboard:limit:{t}:work:-" for t in ("slots", "line", "starts")), KEYS.limits]
    )
    def test_a_key_that_somebody_spoiled_stops_no_run(self, make: Make, key: str) -> None:
        worker = make(concurrency=1, rate="9/hour")
        worker.redis.set(key, "spoiled")
        for run_id in [worker.accept() for _ in range(2)]:
            assert worker.claim(run_id).state == "claimed"
            assert worker.runs.finish(run_id, "work", "w:1", done(run_id))

    def test_redis_looks_at_it_again_whatever_happens(self, make: Make) -> None:
        worker = make(concurrency=1)
        worker.accept(), worker.accept()
        [(_, at)] = worker.redis.zrange(KEYS.limited, 0, -1, withscores=True)
        seconds, micros = worker.redis.time()
        assert at <= seconds * 1000 + micros // 1000 + LOOK_AGAIN_MS


def test_the_metrics_tell_how_many_wait(make: Make) -> None:
    worker = make(concurrency=1, key="caller")
    accept_many(worker, "alice", 4)
    accept_many(worker, "bob", 3)
    accept_many(worker, "carol", 1)
    waits = worker.accept("alice", delay=HOUR)
    counts = read_counts(worker.redis, KEYS, [])
    assert (counts.open, counts.waiting, counts.slot) == (3, 6, {"work": 5})
    worker.runs.cancel(waits, "work", Outcome.canceled(waits))
    while run_id := worker.take():
        worker.end(run_id)
    counts = read_counts(worker.redis, KEYS, [])
    assert (counts.open, counts.waiting, counts.slot) == (0, 0, {"work": 0})


def test_many_of_one_key_delay_another_by_one_run(make: Make) -> None:
    worker = make(concurrency=3, key="caller")
    alice = accept_many(worker, "alice", 20_000)
    chance = random.Random(1)
    before: dict[str, int] = {}  # of the others' runs: those of alice's that came before them
    taken: list[str] = []
    for _ in range(500):
        if chance.random() < 0.3:
            before[worker.accept(chance.choice(["bob", "carol"]))] = 0
        if worker.running and chance.random() < 0.7:
            worker.end(chance.choice(worker.running))
        run_id = worker.take()
        if run_id in before:
            assert before.pop(run_id) <= 1
        elif run_id is not None:
            taken.append(run_id)
            before = {  # one that waits for another of its caller waits for nobody else
                other: count + 1 if worker.status(other) == "queued" else 0
                for other, count in before.items()
            }
    assert taken == alice[: len(taken)]
    assert len(taken) > 50


def accept_many(worker: Worker, caller: str, count: int) -> list[str]:
    starts = [
        Start(run_id=str(uuid4()), action=worker.action, call=Call(caller=caller))
        for _ in range(count)
    ]
    answers = worker.runs.accept_many(starts, max_queue=MANY, result_ttl=60)
    assert all(isinstance(answer, Accepted) for answer in answers)
    return [start.run_id for start in starts]


@pytest.mark.parametrize("seed", range(5))
def test_whatever_happens_there_are_never_too_many_and_all_end(make: Make, seed: int) -> None:
    chance = random.Random(seed)
    most = chance.randint(1, 4)
    worker = make(concurrency=most, key="caller")
    callers, caller_of, holding = ["alice", "bob", "carol"], {}, {}
    for _ in range(600):
        step = chance.random()
        if step < 0.35:
            caller = chance.choice(callers)
            caller_of[worker.accept(caller, **_terms(chance))] = caller
        elif step < 0.6 and (run_id := worker.next_message()):
            if worker.claim(run_id).state == "claimed":
                holding[run_id] = caller_of[run_id]
        elif holding and step < 0.9:
            run_id = chance.choice(sorted(holding))
            del holding[run_id]
            _end_somehow(worker, run_id, chance)
        elif caller_of:
            run_id = chance.choice(sorted(caller_of))
            if run_id not in holding:
                worker.runs.cancel(run_id, "work", Outcome.canceled(run_id))
        for caller in callers:
            assert sum(one == caller for one in holding.values()) <= most
    _drain(worker, list(caller_of), holding)
    assert {worker.status(run_id) for run_id in caller_of} <= {"succeeded", "failed", "canceled"}
    assert worker.tables() == []


def _terms(chance: random.Random) -> dict[str, Any]:
    return {"delay": HOUR} if chance.random() < 0.1 else {}


def _end_somehow(worker: Worker, run_id: str, chance: random.Random) -> None:
    """It ends, is tried again later, or its worker dies or is stopped."""
    way = chance.random()
    if way < 0.6:
        worker.runs.finish(run_id, "work", "w:1", done(run_id))
    elif way < 0.75:
        worker.runs.requeue(run_id, "w:1", 60.0)
    elif way < 0.9:
        worker.runs.requeue(run_id, "w:1")
    elif worker.runs.lose(run_id, "w:1")[1]:
        worker.runs.finish(run_id, "work", "w:1", lost(run_id))


def _drain(worker: Worker, ids: list[str], holding: dict[str, str]) -> None:
    """Run whatever is left to its end."""
    for run_id in holding:
        worker.runs.finish(run_id, "work", "w:1", done(run_id))
    for _ in range(len(ids)):
        due = [i for i in ids if (f := worker.read(i).waiting_for) and f["kind"] == "time"]
        worker.make_due(*due) if due else None
        while run_id := worker.next_message():
            if worker.claim(run_id).is_held:
                worker.runs.finish(run_id, "work", "w:1", done(run_id))
        if not worker.redis.zcard(KEYS.open) and not due:
            return


class TestApi:
    """What callers see."""

    @pytest.fixture
    def call(self, client: FlaskClient, make_token: Callable[..., str]) -> Callable[..., Any]:
        def call(
            path: str = "/api/actions/single",
            params: Any = None,
            method: str = "POST",
            **headers: str,
        ) -> Any:
            given = {
                "Authorization": f"Bearer {make_token()}",
                "Prefer": "respond-async",
                **headers,
            }
            return client.open(
                path,
                method=method,
                json=params,
                headers={k.replace("_", "-"): v for k, v in given.items()},
            )

        return call

    def test_a_run_that_waits_for_a_slot_says_so(self, call: Callable[..., Any]) -> None:
        first, second = (call(params={"tenant": "a"}) for _ in range(2))
        told = [one.get_json()["data"]["status"] for one in (first, second)]
        assert (first.status_code, told) == (202, ["queued", "waiting"])
        path = f"/api/runs/{second.headers['Run-Id']}"
        shown = call(path, method="GET").get_json()["data"]
        assert (shown["status"], shown["waitingFor"]) == ("waiting", {"kind": "slot"})
        listed = call("/api/runs?status=waiting", method="GET").get_json()["data"]["runs"]
        assert [(run["runId"], run["waitingFor"]) for run in listed] == [
            (second.headers["Run-Id"], {"kind": "slot"})
        ]
        later = call(f"{path}/reschedule", params={"delay": 5})
        assert later.status_code == 409
        assert "waits for a slot of its limit" in later.get_json()["error"]
        canceled = call(f"{path}/cancel").get_json()["data"]
        assert canceled["status"] == "canceled"

    def test_a_run_that_is_to_be_tried_again_keeps_its_time(
        self, call: Callable[..., Any], runs: Runs
    ) -> None:
        run_id = call(params={"tenant": "a"}).headers["Run-Id"]
        assert runs.claim(run_id, "single", "w:1", 60).state == "claimed"
        assert runs.requeue(run_id, "w:1", 600.0)
        path = f"/api/runs/{run_id}"
        before = call(path, method="GET").get_json()["data"]
        assert (before["status"], before["waitingFor"]["kind"]) == ("waiting", "time")
        later = call(f"{path}/reschedule", params={"delay": 5})
        assert later.status_code == 409
        assert "has started before" in later.get_json()["error"]
        assert call(path, method="GET").get_json()["data"] == before

    def test_a_key_that_fails_is_a_fault_of_the_application(self, call: Callable[..., Any]) -> None:
        refused = call(params={"other": "canary"})
        assert (refused.status_code, "Run-Id" in refused.headers) == (500, False)
        assert refused.get_json() == {
            "success": False,
            "error": "The limit of action 'single' has no key for this call: KeyError was raised",
            "code": "action_failed",
        }
        assert call(params={"other": 1}, Run_Delay="4000").status_code == 500

    def test_one_of_a_batch_is_refused_by_itself(self, call: Callable[..., Any]) -> None:
        calls = [
            {"action": "single", "params": params}
            for params in ({"tenant": "a"}, {}, {"tenant": "a"})
        ]
        answers = call("/api/batch", params={"calls": calls}).get_json()["data"]
        assert [answer.get("status") for answer in answers] == [None, 500, None]
        statuses = [
            call(f"/api/runs/{answer['runId']}", method="GET").get_json()["data"]["status"]
            for answer in answers[::2]
        ]
        assert statuses == ["queued", "waiting"]

    def test_a_key_leads_to_one_run_also_while_it_waits(self, call: Callable[..., Any]) -> None:
        call(params={"tenant": "a"})
        first, again = (call(params={"tenant": "a"}, Idempotency_Key="k") for _ in range(2))
        assert first.headers["Run-Id"] == again.headers["Run-Id"]
        assert again.headers["Idempotent-Replayed"] == "true"
        assert again.get_json()["data"]["status"] == "waiting"
