"""Runs that wait: for their time, and for all runs of a group to end."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
import redis
from ended_runs import SEALER, done, lost, work
from flask.testing import FlaskClient

from callboard.connections.keys import Keys
from callboard.errors import KeyReused, QueueFull
from callboard.runs.format import FORMAT, START
from callboard.runs.live import Live
from callboard.runs.outcome import Outcome
from callboard.runs.record import RunRecord
from callboard.runs.seal import Call
from callboard.runs.start import Terms
from callboard.runs.store import IDEMPOTENCY_MS, Runs
from worker.archive.archiver import Archiver
from worker.lease.releasing import BATCH, Releasing

KEYS = Keys()
HOUR = 3_600_000  # milliseconds
MANY = 10_000  # messages in a queue
Start = Callable[..., str]


@pytest.fixture
def start(runs: Runs) -> Start:
    """Starts a run: ``start(delay=60_000)``."""

    def start(*, run_id: str = "", key: str | None = None, digest: str = "d", **terms: Any) -> str:
        call = Call(caller="alice", params={"n": 1})
        given: dict[str, Any] = {"max_queue": MANY, "result_ttl": 60, "terms": Terms(**terms)}
        given["idempotency"] = key and (key, digest)
        return runs.accept(run_id or str(uuid4()), work, call, **given).run_id

    return start


def make_due(client: redis.Redis, *run_ids: str) -> None:
    """As if their time had come."""
    client.zadd(KEYS.due, dict.fromkeys(run_ids, 1))


def read(runs: Runs, run_id: str) -> RunRecord:
    record = runs.read(run_id)
    assert record is not None
    return record


def end(runs: Runs, run_id: str, outcome: Callable[[str], Outcome] = done) -> None:
    assert runs.claim(run_id, "work", "w:1", 5).is_held
    assert runs.finish(run_id, "work", "w:1", outcome(run_id))


class TestForItsTime:
    def test_it_has_no_message_and_is_not_looked_after(
        self, runs: Runs, start: Start, redis_client: redis.Redis
    ) -> None:
        run_id = start(delay=HOUR)
        record = read(runs, run_id)
        assert record.status == "waiting"
        assert record.due is not None
        assert record.due - record.enqueued == HOUR
        assert record.waiting_for == {"kind": "time", "until": record.due}
        assert redis_client.llen("callboard") == 0
        assert redis_client.zcard(KEYS.open) == 0
        assert runs.sweep() == []
        assert redis_client.hget(KEYS.run(run_id), "v") == str(START).encode()
        assert runs.release(BATCH, MANY) == 0
        assert runs.claim(run_id, "work", "w:1", 5).state == "early"  # whoever woke a worker for it

    def test_it_is_queued_when_it_is_due(
        self, runs: Runs, start: Start, redis_client: redis.Redis
    ) -> None:
        run_id = start(delay=HOUR)
        enqueued = read(runs, run_id).enqueued
        make_due(redis_client, run_id)
        assert runs.release(BATCH, MANY) == 1
        assert runs.release(BATCH, MANY) == 0
        assert redis_client.llen("callboard") == 1
        record = read(runs, run_id)
        assert (record.status, record.waiting_for) == ("queued", None)
        assert record.enqueued >= enqueued
        assert redis_client.zscore(KEYS.live, run_id) == record.enqueued
        assert redis_client.zscore(KEYS.open, run_id) is not None
        end(runs, run_id)
        assert read(runs, run_id).status == "succeeded"

    def test_a_start_without_a_delay_is_queued_at_once(
        self, runs: Runs, start: Start, redis_client: redis.Redis
    ) -> None:
        assert read(runs, start(delay=-5)).status == "queued"
        assert redis_client.llen("callboard") == 1

    def test_it_is_one_run_and_waits_for_a_queue_with_room(
        self, runs: Runs, start: Start, redis_client: redis.Redis
    ) -> None:
        run_id = start(delay=HOUR)
        assert start(run_id=run_id, delay=HOUR) == run_id
        make_due(redis_client, run_id)
        redis_client.lpush("callboard", "another")
        assert runs.release(BATCH, 1) == 1
        assert read(runs, run_id).status == "waiting"
        assert runs.release(BATCH, 1) == 0  # looked at again a second later: others come first
        make_due(redis_client, run_id)
        assert runs.release(BATCH, 2) == 1
        assert read(runs, run_id).status == "queued"

    def test_a_full_queue_takes_what_is_not_due_yet(
        self, runs: Runs, start: Start, redis_client: redis.Redis
    ) -> None:
        redis_client.lpush("callboard", *range(MANY))
        assert read(runs, start(delay=HOUR)).status == "waiting"
        with pytest.raises(QueueFull):
            start()

    def test_a_canceled_one_never_starts(
        self, runs: Runs, start: Start, redis_client: redis.Redis
    ) -> None:
        run_id = start(delay=HOUR)
        runs.cancel(run_id, "work", Outcome.canceled(run_id))
        assert read(runs, run_id).status == "canceled"
        assert redis_client.zcard(KEYS.due) == 0
        assert runs.claim(run_id, "work", "w:1", 5).state == "ended"
        assert redis_client.lrange(KEYS.ended, 0, -1) != []

    def test_another_time_is_another_expiry(
        self, runs: Runs, start: Start, redis_client: redis.Redis
    ) -> None:
        run_id = start(delay=HOUR, key="k")
        record = read(runs, run_id)
        assert record.call is not None
        later = replace(record.call, expires=record.call.expires + 3600)
        assert runs.reschedule(record, later, 3 * HOUR)
        moved = read(runs, run_id)
        assert moved.call == later
        assert moved.due is not None
        assert record.due is not None
        assert 2 * HOUR <= moved.due - record.due < 2 * HOUR + 60_000
        assert redis_client.zscore(KEYS.due, run_id) == moved.due
        assert redis_client.pttl(KEYS.idempotency("k")) > IDEMPOTENCY_MS + 2 * HOUR
        runs.cancel(run_id, "work", Outcome.canceled(run_id))
        assert not runs.reschedule(moved, later, HOUR)
        assert redis_client.zcard(KEYS.due) == 0

    def test_an_idempotency_key_lives_from_then(
        self, runs: Runs, start: Start, redis_client: redis.Redis
    ) -> None:
        run_id = start(delay=5 * HOUR, key="k")
        assert start(delay=5 * HOUR, key="k") == run_id
        assert redis_client.pttl(KEYS.idempotency("k")) > IDEMPOTENCY_MS + 4 * HOUR
        with pytest.raises(KeyReused):
            start(delay=HOUR, key="k", digest="another")

    def test_what_has_lost_its_message_ends(
        self, runs: Runs, start: Start, redis_client: redis.Redis
    ) -> None:
        run_id = start(delay=HOUR)
        redis_client.hdel(KEYS.run(run_id), "message")
        make_due(redis_client, run_id, "nobody")
        assert runs.release(BATCH, MANY) == 2
        assert redis_client.zcard(KEYS.due) == 0
        assert runs.sweep() == [(run_id, "work")]

    def test_a_newer_one_is_left(self, runs: Runs, start: Start, redis_client: redis.Redis) -> None:
        run_id = start(delay=HOUR)
        redis_client.hset(KEYS.run(run_id), "v", FORMAT + 1)
        make_due(redis_client, run_id)
        runs.release(BATCH, MANY)
        assert redis_client.hget(KEYS.run(run_id), "status") == b"waiting"
        assert redis_client.zscore(KEYS.due, run_id) > 1

    def test_its_end_is_in_the_history_as_of_when_it_was_queued(
        self, runs: Runs, start: Start, redis_client: redis.Redis, archiver: Archiver, history
    ) -> None:
        run_id = start(delay=HOUR)
        redis_client.hset(KEYS.run(run_id), "enqueued", 1)  # started long ago
        make_due(redis_client, run_id)
        runs.release(BATCH, MANY)
        queued = read(runs, run_id).enqueued
        assert queued > 1
        end(runs, run_id)
        archiver.turn()
        assert history.find(run_id).enqueued == queued

    def test_all_that_is_due_is_queued_in_one_turn_the_earliest_first(
        self, runs: Runs, start: Start, redis_client: redis.Redis
    ) -> None:
        ids = [start(delay=HOUR) for _ in range(BATCH + 3)]
        redis_client.zadd(KEYS.due, {run_id: n for n, run_id in enumerate(ids, 1)})
        Releasing(runs, MANY).turn()
        assert redis_client.zcard(KEYS.due) == 0
        queued = redis_client.lrange("callboard", 0, -1)
        assert len(queued) == len(ids)
        assert ids[0].encode() in queued[-1]
        assert ids[-1].encode() in queued[0]

    def test_it_is_listed_and_shown(
        self,
        runs: Runs,
        start: Start,
        redis_client: redis.Redis,
        api: Callable[..., FlaskClient],
        make_token: Callable[..., str],
    ) -> None:
        run_id, other = start(delay=HOUR), start()
        live = Live(redis_client, SEALER, KEYS)
        wanted: dict[str, Any] = {"caller": "alice", "action": None, "after": None, "limit": 9}
        assert [p.run_id for p in live.page(**wanted, status="waiting")] == [run_id]
        assert [p.run_id for p in live.page(**wanted, status="queued")] == [other]
        headers = {"Authorization": f"Bearer {make_token(sub='alice')}"}
        client = api()
        shown = client.get(f"/api/runs/{run_id}", headers=headers).json["data"]
        [row] = client.get("/api/runs?status=waiting", headers=headers).json["data"]["runs"]
        for run in (shown, row):
            assert (run["runId"], run["status"]) == (run_id, "waiting")
            assert run["waitingFor"]["kind"] == "time"
            assert run["waitingFor"]["until"] > run["enqueuedAt"]
        assert "waitingFor" not in client.get(f"/api/runs/{other}", headers=headers).json["data"]
        canceled = client.post(f"/api/runs/{run_id}/cancel", headers=headers).json["data"]
        assert canceled["status"] == "canceled"


class TestForAGroup:
    def test_the_last_end_starts_it(
        self, runs: Runs, start: Start, redis_client: redis.Redis
    ) -> None:
        children = [start(group="g", size=3) for _ in range(3)]
        then = start(join="g", size=3)
        assert read(runs, then).waiting_for == {"kind": "group"}
        ends: list[Callable[[str], Outcome]] = [done, lost]
        for run_id, outcome in zip(children, ends, strict=False):
            end(runs, run_id, outcome)
            assert read(runs, then).status == "waiting"
        runs.cancel(children[2], "work", Outcome.canceled(children[2]))
        assert read(runs, then).status == "queued"
        assert redis_client.lrange("callboard", 0, 0)[0].find(then.encode()) > 0
        end(runs, then)
        assert not redis_client.exists(KEYS.group("g"))

    def test_it_may_come_last_and_nobody_may_be_there(self, runs: Runs, start: Start) -> None:
        child = start(group="g", size=1)
        end(runs, child)
        assert read(runs, start(join="g", size=1)).status == "queued"
        assert read(runs, start(join="empty", size=0)).status == "queued"

    def test_a_run_counts_once_however_often_it_ends(self, runs: Runs, start: Start) -> None:
        child, _other = (start(group="g", size=2) for _ in range(2))
        then = start(join="g", size=2)
        end(runs, child, lost)
        record = read(runs, child)
        assert record.call is not None
        assert runs.retry(record, record.call)
        end(runs, child)
        assert start(run_id=child, group="g", size=2) == child  # by its parent's rerun
        assert read(runs, then).status == "waiting"

    def test_a_canceled_one_is_not_started(
        self, runs: Runs, start: Start, redis_client: redis.Redis
    ) -> None:
        child, then = start(group="g", size=1), start(join="g", size=1)
        runs.cancel(then, "work", Outcome.canceled(then))
        end(runs, child)
        assert read(runs, then).status == "canceled"
        assert not redis_client.exists(KEYS.group("g"))

    def test_a_group_that_is_gone_or_spoiled_stops_no_end(
        self, runs: Runs, start: Start, redis_client: redis.Redis
    ) -> None:
        one, other = start(group="g", size=2), start(group="g", size=2)
        redis_client.delete(KEYS.group("g"))
        end(runs, one)
        redis_client.set(KEYS.group("g"), "spoiled")
        end(runs, other)
        assert read(runs, other).status == "succeeded"

    @pytest.mark.parametrize("seed", range(12))
    def test_whatever_happens_in_whatever_order_it_starts_once(
        self, runs: Runs, start: Start, redis_client: redis.Redis, seed: int
    ) -> None:
        chance = random.Random(seed)
        size = chance.randint(1, 6)
        children = [str(uuid4()) for _ in range(size)]
        then = str(uuid4())
        open_runs, starts = set(children), [*children, then, *chance.sample(children, size // 2)]
        chance.shuffle(starts)
        begun: set[str] = set()
        while starts or open_runs:
            if starts and (not open_runs & begun or chance.random() < 0.5):
                run_id = starts.pop()
                begun.add(run_id)
                terms = {"join": "g"} if run_id == then else {"group": "g"}
                start(run_id=run_id, size=size, **terms)
            elif not starts and not open_runs & begun:
                break
            else:
                _step(runs, redis_client, chance, chance.choice(sorted(open_runs & begun)))
            open_runs -= {r for r in open_runs & begun if read(runs, r).ended}
            if then in begun:
                assert (read(runs, then).status == "queued") == (not open_runs)
        messages = b"".join(redis_client.lrange("callboard", 0, -1))
        assert messages.count(f'"id":"{then}"'.encode()) == 1
        assert not redis_client.exists(KEYS.group("g"))


def _step(runs: Runs, client: redis.Redis, chance: random.Random, run_id: str) -> None:
    """Something that may happen to a child, often its end, often twice."""
    holder = f"w:{chance.randint(1, 2)}"
    happens = chance.choice(["claim", "finish", "lose", "cancel", "expire", "retry"])
    if happens == "claim":
        runs.claim(run_id, "work", holder, 5)
    elif happens == "finish":
        runs.claim(run_id, "work", holder, 5)
        for _ in range(2):
            runs.finish(run_id, "work", holder, chance.choice([done, lost])(run_id))
    elif happens == "lose":
        _, over = runs.lose(run_id, holder)
        if over:
            runs.finish(run_id, "work", holder, lost(run_id))
    elif happens == "cancel":
        runs.cancel(run_id, "work", Outcome.canceled(run_id))
    elif happens == "expire":
        client.hset(KEYS.run(run_id), "lease", 1)
        for _ in range(2):
            runs.expire(run_id, "work", Outcome.failed("Expired", run_id))
    elif (record := read(runs, run_id)).call and record.ended:
        runs.retry(record, record.call)


def test_a_hundred_thousand_cost_a_look_nothing(
    runs: Runs, start: Start, redis_client: redis.Redis
) -> None:
    redis_client.zadd(KEYS.due, {str(n): 10**13 + n for n in range(100_000)})
    run_id = start(delay=HOUR)
    make_due(redis_client, run_id)
    started = time.process_time()
    assert runs.release(BATCH, MANY) == 1
    assert time.process_time() - started < 1
