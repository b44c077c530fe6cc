"""The run record: each script against a real server, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
import redis

from callboard import ActionResult, action, ok
from callboard.connections.keys import Keys
from callboard.errors import BrokerUnavailable, KeyReused, QueueFull
from callboard.runs import message
from callboard.runs.outcome import Outcome
from callboard.runs.seal import Call, Sealer
from callboard.runs.store import Accepted, Runs

KEYS = Keys()

LEASE = 5.0  # seconds
TURN = 0.25  # seconds between two sweeps


@action("work")
def work(ctx: Any) -> ActionResult:
    return ok()


Accept = Callable[..., str]


@pytest.fixture
def accept(runs: Runs) -> Accept:
    """Accepts a run and answers its id."""

    def accept(**options: Any) -> str:
        return accept_with(runs, **options).run_id

    return accept


def accept_with(runs: Runs, run_id: str | None = None, **options: Any) -> Accepted:
    given = {"max_queue": 100, "result_ttl": 60, **options}
    call = Call(caller="alice", params={"canary": "canary-param"}, jwt="canary-jwt")
    return runs.accept(run_id or str(uuid4()), work, call, **given)


def queued(client: redis.Redis) -> list[str]:
    return [json.loads(text)["headers"]["id"] for text in client.lrange("callboard", 0, -1)]


def done(run_id: str) -> Outcome:
    return Outcome.of(ok("done"), run_id)


def make_due(client: redis.Redis, run_id: str) -> None:
    """Let the time come at which the run is looked at again."""
    client.zadd(KEYS.open, {run_id: 1})
    client.delete("callboard:sweep")


def lapse(client: redis.Redis, run_id: str) -> None:
    """Let the claim on the run lapse."""
    client.hset(f"callboard:run:{run_id}", "lease", 1)
    make_due(client, run_id)


def pass_time(client: redis.Redis, claimed: str, seconds: float) -> None:
    """Let all times in `KEYS.open` and the claim on one run come nearer."""
    earlier = {run_id: score - seconds * 1000 for run_id, score in client.zscan_iter(KEYS.open)}
    client.zadd(KEYS.open, earlier)
    client.hincrby(f"callboard:run:{claimed}", "lease", -int(seconds * 1000))
    client.delete("callboard:sweep")


class TestAccept:
    def test_record_and_message_are_written_together(
        self, runs: Runs, accept: Accept, redis_client: redis.Redis
    ) -> None:
        run_id = accept()
        assert queued(redis_client) == [run_id]
        record = runs.read(run_id)
        assert record is not None
        assert (record.status, record.attempt, record.caller) == ("queued", 0, "alice")
        assert redis_client.zscore(KEYS.open, run_id) is not None

    def test_nothing_of_the_call_is_readable(
        self, accept: Accept, redis_client: redis.Redis
    ) -> None:
        run_id = accept()
        stored = repr(redis_client.hgetall(f"callboard:run:{run_id}"))
        stored += repr(redis_client.lrange("callboard", 0, -1))
        for secret in ("canary", "alice"):
            assert secret not in stored

    def test_the_same_run_twice_is_one_run(
        self, runs: Runs, accept: Accept, redis_client: redis.Redis
    ) -> None:
        run_id = accept()
        accept_with(runs, run_id)
        assert queued(redis_client) == [run_id]

    def test_a_full_queue_refuses(self, accept: Accept, redis_client: redis.Redis) -> None:
        accept(max_queue=2)
        accept(max_queue=2)
        with pytest.raises(QueueFull, match="2 runs"):
            accept(max_queue=2)
        assert len(queued(redis_client)) == redis_client.zcard(KEYS.open) == 2

    def test_an_idempotency_key_leads_to_the_run_it_first_made(self, runs: Runs) -> None:
        first = accept_with(runs, idempotency=("key", "body"))
        second = accept_with(runs, idempotency=("key", "body"))
        assert second == (first.run_id, True)
        with pytest.raises(KeyReused):
            accept_with(runs, idempotency=("key", "another body"))
        assert accept_with(runs, idempotency=("other key", "body")).run_id != first.run_id

    def test_a_retryable_end_starts_again_under_its_id(
        self, runs: Runs, redis_client: redis.Redis
    ) -> None:
        run_id = accept_with(runs, idempotency=("key", "body")).run_id
        runs.claim(run_id, "work", "w:1", LEASE)
        assert runs.finish(run_id, "work", "w:1", Outcome.unavailable("away", run_id))
        redis_client.delete("callboard")
        assert accept_with(runs, idempotency=("key", "body")) == (run_id, False)
        assert queued(redis_client) == [run_id]
        record = runs.read(run_id)
        assert record is not None
        assert (record.status, record.outcome) == ("queued", None)

    @pytest.mark.parametrize("ended", [False, True])
    def test_sent_again_by_whoever_had_no_answer_it_is_accepted_again(
        self, runs: Runs, ended: bool
    ) -> None:
        """The first answer was lost with its connection: the run is its own, not another's."""
        first = accept_with(runs, idempotency=("key", "body"))
        if ended:
            runs.claim(first.run_id, "work", "w:1", LEASE)
            runs.finish(first.run_id, "work", "w:1", Outcome.unavailable("away", first.run_id))
        again = accept_with(runs, first.run_id, idempotency=("key", "body"))
        assert again == first == (first.run_id, False)
        record = runs.read(first.run_id)
        assert record is not None
        assert record.status == ("failed" if ended else "queued")

    def test_a_final_end_is_joined(self, runs: Runs) -> None:
        run_id = accept_with(runs, idempotency=("key", "body")).run_id
        runs.claim(run_id, "work", "w:1", LEASE)
        runs.finish(run_id, "work", "w:1", done(run_id))
        assert accept_with(runs, idempotency=("key", "body")) == (run_id, True)


class TestClaim:
    def test_a_queued_run_is_claimed_once(self, runs: Runs, accept: Accept) -> None:
        run_id = accept()
        claim = runs.claim(run_id, "work", "w:1", LEASE)
        assert (claim.state, claim.attempt, claim.lost) == ("claimed", 1, 0)
        assert runs.claim(run_id, "work", "w:2", LEASE).state == "held"

    def test_the_same_claim_sent_again_counts_once(self, runs: Runs, accept: Accept) -> None:
        run_id = accept()
        runs.claim(run_id, "work", "w:1", LEASE)
        assert runs.claim(run_id, "work", "w:1", LEASE).attempt == 1

    def test_a_lapsed_claim_is_taken_over_and_counts_as_lost(
        self, runs: Runs, accept: Accept, redis_client: redis.Redis
    ) -> None:
        run_id = accept()
        runs.claim(run_id, "work", "w:1", LEASE)
        runs.note_session(run_id, "w:1", "session-1")
        lapse(redis_client, run_id)
        claim = runs.claim(run_id, "work", "w:2", LEASE)
        assert (claim.state, claim.attempt, claim.lost) == ("claimed", 2, 1)
        assert claim.session == "session-1"
        assert not runs.finish(run_id, "work", "w:1", done(run_id))
        assert runs.finish(run_id, "work", "w:2", done(run_id))

    def test_what_is_not_there_or_is_another_action_is_gone(
        self, runs: Runs, accept: Accept
    ) -> None:
        assert runs.claim(str(uuid4()), "work", "w:1", LEASE).state == "gone"
        assert runs.claim(accept(), "other", "w:1", LEASE).state == "gone"

    def test_a_run_that_ended_stays_ended(self, runs: Runs, accept: Accept) -> None:
        run_id = accept()
        runs.claim(run_id, "work", "w:1", LEASE)
        runs.finish(run_id, "work", "w:1", done(run_id))
        assert runs.claim(run_id, "work", "w:2", LEASE).state == "ended"


class TestRenew:
    def test_each_claim_is_told_how_it_stands(
        self, runs: Runs, accept: Accept, redis_client: redis.Redis
    ) -> None:
        held, canceled, taken, ended = accept(), accept(), accept(), accept()
        for run_id in (held, canceled, taken, ended):
            runs.claim(run_id, "work", "w:7:1", LEASE)
        runs.cancel(canceled, "work", Outcome.canceled(canceled))
        lapse(redis_client, taken)
        runs.claim(taken, "work", "x:1:1", LEASE)
        runs.finish(ended, "work", "w:7:1", done(ended))
        redis_client.hset(f"callboard:run:{held}", "lease", 1)
        pairs = [(run_id, "w:7:1") for run_id in (held, canceled, taken, ended)]
        assert runs.renew(pairs, LEASE) == ["held", "cancel", "taken", "ended"]
        assert runs.claim(held, "work", "x:1:2", LEASE).state == "held"


class TestFinish:
    def test_the_result_is_stored_published_and_left_for_the_history(
        self, runs: Runs, accept: Accept, redis_client: redis.Redis
    ) -> None:
        run_id = accept(reply="reply-channel")
        with redis_client.pubsub(ignore_subscribe_messages=True) as channel:
            channel.subscribe("reply-channel")
            assert channel.get_message(timeout=60) is None
            runs.claim(run_id, "work", "w:1", LEASE)
            assert runs.finish(run_id, "work", "w:1", done(run_id))
            told = channel.get_message(timeout=60)
        assert told is not None
        assert told["data"][:36].decode() == run_id
        assert runs.open_result(run_id, "work", told["data"][36:]) == done(run_id)
        assert runs.results([run_id]).keys() == {run_id}
        assert redis_client.pttl(f"callboard:run:{run_id}") == -1
        assert [entry.decode()[:36] for entry in redis_client.lrange(KEYS.ended, 0, -1)] == [run_id]
        assert redis_client.zscore(KEYS.open, run_id) is None

    def test_the_next_message_is_asked_for_with_the_end(
        self, runs: Runs, accept: Accept, redis_client: redis.Redis
    ) -> None:
        run_id, following, last = accept(), accept(), accept()
        redis_client.rpop("callboard")
        runs.claim(run_id, "work", "w:1", LEASE)
        ending = run_id, "work", "w:1", done(run_id)
        ended, receive = runs.finish_and_request(*ending, ("empty", "callboard"))
        assert ended
        wakeup, tag = message.read(receive() or b"") or (None, None)
        assert wakeup == ("actions.work", following, "{1 fields}")
        assert runs.sealer.is_signed(tag, *wakeup)
        assert queued(redis_client) == [last]
        again, receive = runs.finish_and_request(*ending, ("empty",))
        assert not again
        assert receive() is None

    def test_a_server_that_has_forgotten_the_scripts_is_told_them(
        self, runs: Runs, accept: Accept, redis_client: redis.Redis
    ) -> None:
        run_id, following = accept(), accept()
        redis_client.rpop("callboard")
        runs.claim(run_id, "work", "w:1", LEASE)
        redis_client.script_flush()
        ended, receive = runs.finish_and_request(
            run_id, "work", "w:1", done(run_id), ("callboard",)
        )
        assert ended
        assert following.encode() in (receive() or b"")

    def test_a_message_that_nobody_took_is_not_the_next_ones(
        self, runs: Runs, accept: Accept, redis_client: redis.Redis
    ) -> None:
        run_id, forgotten, following = accept(), accept(), accept()
        redis_client.rpop("callboard")
        runs.claim(run_id, "work", "w:1", LEASE)
        runs.finish_and_request(run_id, "work", "w:1", done(run_id), ("callboard",))
        assert following.encode() in (runs.request_message(("callboard",))() or b"")
        assert forgotten.encode() not in b"".join(redis_client.lrange("callboard", 0, -1))
        make_due(redis_client, forgotten)
        runs.sweep()
        assert queued(redis_client) == [forgotten]

    def test_a_message_is_waited_for_a_moment(self, runs: Runs, accept: Accept) -> None:
        assert runs.request_message(("callboard", "other"))() is None
        run_id = accept()
        assert run_id.encode() in (runs.request_message(("other", "callboard"))() or b"")

    def test_only_the_holder_finishes_and_only_once(self, runs: Runs, accept: Accept) -> None:
        run_id = accept()
        assert not runs.finish(run_id, "work", "w:1", done(run_id))
        runs.claim(run_id, "work", "w:1", LEASE)
        assert not runs.finish(run_id, "work", "w:2", done(run_id))
        assert runs.finish(run_id, "work", "w:1", done(run_id))
        assert not runs.finish(run_id, "work", "w:1", done(run_id))


class TestRequeueAndLose:
    def test_a_retry_is_claimed_after_its_delay_and_not_before(
        self, runs: Runs, accept: Accept, redis_client: redis.Redis
    ) -> None:
        run_id = accept()
        runs.claim(run_id, "work", "w:1", LEASE)
        redis_client.delete("callboard")
        assert runs.requeue(run_id, "w:1", delay=30)
        assert queued(redis_client) == []
        assert runs.claim(run_id, "work", "w:2", LEASE).state == "early"
        redis_client.hset(f"callboard:run:{run_id}", "due", 1)
        make_due(redis_client, run_id)
        runs.sweep()
        assert queued(redis_client) == [run_id]
        assert runs.claim(run_id, "work", "w:2", LEASE).attempt == 2

    def test_handing_back_queues_at_once_and_is_no_loss(
        self, runs: Runs, accept: Accept, redis_client: redis.Redis
    ) -> None:
        run_id = accept()
        runs.claim(run_id, "work", "w:1", LEASE)
        redis_client.delete("callboard")
        assert runs.requeue(run_id, "w:1")
        assert queued(redis_client) == [run_id]
        assert runs.claim(run_id, "work", "x:1", LEASE).lost == 0
        assert not runs.requeue(run_id, "w:1")

    def test_losses_queue_the_run_until_the_limit(self, runs: Runs, accept: Accept) -> None:
        run_id = accept()
        for loss in (1, 2):
            runs.claim(run_id, "work", f"w:{loss}", LEASE)
            assert runs.lose(run_id, f"w:{loss}") == (loss, False)
        runs.claim(run_id, "work", "w:3", LEASE)
        assert runs.lose(run_id, "w:3") == (3, True)
        assert runs.claim(run_id, "work", "w:4", LEASE).state == "held"
        assert runs.finish(run_id, "work", "w:3", Outcome.failed("Worker lost", run_id))
        assert runs.lose(run_id, "w:3") == (-1, False)


class TestCancel:
    def test_a_queued_run_never_starts(self, runs: Runs, accept: Accept) -> None:
        run_id = accept()
        runs.cancel(run_id, "work", Outcome.canceled(run_id))
        record = runs.read(run_id)
        assert record is not None
        assert (record.status, record.outcome) == ("canceled", Outcome.canceled(run_id))
        assert runs.claim(run_id, "work", "w:1", LEASE).state == "ended"

    def test_a_run_that_ended_is_unchanged(self, runs: Runs, accept: Accept) -> None:
        run_id = accept()
        runs.claim(run_id, "work", "w:1", LEASE)
        runs.finish(run_id, "work", "w:1", done(run_id))
        runs.cancel(run_id, "work", Outcome.canceled(run_id))
        record = runs.read(run_id)
        assert record is not None
        assert record.outcome == done(run_id)


class TestSweep:
    @pytest.mark.parametrize("state", ["queued", "lapsed"])
    def test_a_lost_wake_up_is_sent_again_once(
        self, runs: Runs, accept: Accept, redis_client: redis.Redis, state: str
    ) -> None:
        run_id = accept()
        if state == "lapsed":
            runs.claim(run_id, "work", "w:1", LEASE)
            lapse(redis_client, run_id)
        redis_client.delete("callboard")
        for _ in range(2):
            make_due(redis_client, run_id)
            runs.sweep()
        assert queued(redis_client) == [run_id]

    def test_a_message_that_waits_its_turn_is_left_alone(
        self, runs: Runs, accept: Accept, redis_client: redis.Redis
    ) -> None:
        run_id = accept()
        make_due(redis_client, run_id)
        runs.sweep()
        assert queued(redis_client) == [run_id]

    def test_one_sweeper_at_a_time(
        self, runs: Runs, accept: Accept, redis_client: redis.Redis
    ) -> None:
        first, second = accept(), accept()
        redis_client.delete("callboard")
        make_due(redis_client, first)
        runs.sweep()
        redis_client.zadd(KEYS.open, {second: 1})
        runs.sweep()
        assert queued(redis_client) == [first]

    def test_a_queued_run_that_outlived_its_seal_is_told(
        self, runs: Runs, accept: Accept, redis_client: redis.Redis
    ) -> None:
        run_id = accept()
        redis_client.hset(f"callboard:run:{run_id}", "enqueued", 1)
        make_due(redis_client, run_id)
        assert runs.sweep() == [(run_id, "work")]
        runs.expire(run_id, "work", Outcome.failed("Expired", run_id))
        assert runs.results([run_id])

    def test_a_lapsed_claim_does_not_wait_behind_a_deep_queue(
        self, runs: Runs, accept: Accept, redis_client: redis.Redis
    ) -> None:
        for _ in range(400):
            accept(max_queue=1000)
        run_id = queued(redis_client)[-1]
        redis_client.rpop("callboard")
        runs.claim(run_id, "work", "w:1", LEASE)
        for _ in range(int(LEASE / TURN) + 4):
            pass_time(redis_client, run_id, TURN)
            runs.sweep()
        assert queued(redis_client)[-1] == run_id


class TestWatch:
    def test_a_watcher_is_told_of_each_change(
        self, runs: Runs, accept: Accept, redis_client: redis.Redis
    ) -> None:
        run_id = accept()
        with redis_client.pubsub(ignore_subscribe_messages=True) as channel:
            channel.subscribe("watcher")
            assert channel.get_message(timeout=60) is None
            assert runs.watch(run_id, "watcher")
            assert runs.watch(run_id, "watcher")
            runs.claim(run_id, "work", "w:1", LEASE)
            runs.note_progress(run_id, "work", "w:1", b'{"fraction": 0.5, "message": null}')
            runs.finish(run_id, "work", "w:1", done(run_id))
            told = [channel.get_message(timeout=60) for _ in range(3)]
            assert channel.get_message(timeout=0) is None
        assert [message and message["data"].decode() for message in told] == [run_id] * 3
        assert not runs.watch(str(uuid4()), "watcher")

    def test_progress_is_sealed_and_only_the_holders(
        self, runs: Runs, accept: Accept, redis_client: redis.Redis
    ) -> None:
        run_id = accept()
        assert not runs.note_progress(run_id, "work", "w:1", b"{}")
        runs.claim(run_id, "work", "w:1", LEASE)
        assert runs.note_progress(run_id, "work", "w:1", b'{"message": "canary"}')
        assert "canary" not in repr(redis_client.hgetall(f"callboard:run:{run_id}"))
        record = runs.read(run_id)
        assert record is not None
        assert record.progress == b'{"message": "canary"}'


def test_a_broker_that_is_away_is_told_as_such() -> None:
    nobody = redis.Redis(port=1, socket_connect_timeout=0.2, retry=None)
    with pytest.raises(BrokerUnavailable):
        accept_with(Runs(nobody, Sealer(("k" * 40,)), KEYS))
