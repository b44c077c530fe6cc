"""The history: from the record's end into MongoDB, with crashes in between, and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
import redis
from ended_runs import SEALER, end, finish, forget_turn, lost
from pymongo import MongoClient
from pymongo.database import Database

from callboard import fail
from callboard.connections.keys import Keys
from callboard.errors import DatabaseUnavailable
from callboard.runs.ended import Ended
from callboard.runs.history import RUNS, History
from callboard.runs.outcome import Outcome
from callboard.runs.seal import Sealer
from callboard.runs.store import Runs
from callboard.stack.ports import free_port
from worker.archive.archiver import FEW, LOST_KEPT_SECONDS, Archiver

KEYS = Keys()


class TestWriting:
    def test_a_run_is_in_the_history_before_its_record_may_expire(
        self, runs: Runs, archiver: Archiver, history: History, redis_client: redis.Redis
    ) -> None:
        run_id = end(runs)
        assert redis_client.ttl(f"callboard:run:{run_id}") == -1
        assert archiver.turn() == 1
        assert 55 <= redis_client.ttl(f"callboard:run:{run_id}") <= 60
        assert not redis_client.exists(KEYS.ended, KEYS.live)
        assert not list(redis_client.scan_iter(f"{KEYS.live}:*"))
        found = history.find(run_id)
        record = runs.read(run_id)
        assert found is not None
        assert record is not None
        for name in ("id", "action", "status", "caller", "enqueued", "started", "ended"):
            assert getattr(found, name) == getattr(record, name)
        assert (found.outcome, found.attempt) == (record.outcome, 1)

    def test_a_burst_is_moved_a_few_at_a_time_and_the_rest_once_it_is_over(
        self, runs: Runs, archiver: Archiver
    ) -> None:
        for _ in range(FEW + 30):
            end(runs)
        assert archiver.turn() == FEW
        for _ in range(FEW + 1):
            end(runs)
        assert archiver.turn() == FEW  # more are waiting than at the last turn
        assert archiver.turn() == 31

    def test_a_burst_that_lasts_is_not_waited_out(
        self, runs: Runs, archiver: Archiver, redis_client: redis.Redis
    ) -> None:
        for _ in range(FEW + 30):
            run_id = end(runs)
        _, ended = redis_client.lpop(KEYS.ended).split()
        long_ago = int(ended) - 31_000
        redis_client.hset(f"callboard:run:{run_id}", "ended", long_ago)
        redis_client.lpush(KEYS.ended, f"{run_id} {long_ago}")
        assert archiver.turn() > FEW

    def test_no_result_and_no_exception_is_readable(
        self, runs: Runs, archiver: Archiver, database: Database[dict[str, Any]]
    ) -> None:
        end(runs)
        end(runs, lambda run_id: Outcome.of(fail("Event not found"), run_id))
        archiver.turn()
        documents = list(database[RUNS].find().sort("enqueuedAt"))
        assert "canary" not in repr(documents)
        assert [row["error"] for row in documents] == [None, "Event not found"]

    def test_a_writer_that_dies_before_it_settles_leaves_no_gap_and_no_double(
        self,
        runs: Runs,
        history: History,
        archiver: Archiver,
        database: Database[dict[str, Any]],
        redis_client: redis.Redis,
    ) -> None:
        before = [end(runs) for _ in range(3)]
        taken = Ended(redis_client, KEYS).take("died", 60, 2)
        history.write([history.document(run) for run in taken], frozenset())
        forget_turn(redis_client)
        after = end(runs)
        assert archiver.turn() == 4
        assert {row["_id"] for row in database[RUNS].find()} == {*before, after}

    def test_one_that_was_overtaken_settles_nothing(
        self, runs: Runs, archiver: Archiver, redis_client: redis.Redis
    ) -> None:
        end(runs)
        ended = Ended(redis_client, KEYS)
        taken = ended.take("slow", 60, 10)
        forget_turn(redis_client)
        assert archiver.turn() == 1
        late = end(runs)
        assert ended.settle([(run, 0) for run in taken]) == 0
        assert len(ended) == 1
        assert redis_client.ttl(f"callboard:run:{late}") == -1

    def test_several_at_once_lose_and_double_nothing(
        self,
        runs: Runs,
        make_archiver: Callable[..., Archiver],
        database: Database[dict[str, Any]],
        redis_client: redis.Redis,
        eventually: Callable[..., None],
    ) -> None:
        archivers = [make_archiver() for _ in range(3)]
        for archiver in archivers:
            archiver.start()
        expected = {end(runs) for _ in range(300)}
        eventually(lambda: not redis_client.exists(KEYS.ended))
        for archiver in archivers:
            archiver.stop()
        assert {row["_id"] for row in database[RUNS].find()} == expected
        assert all(redis_client.ttl(f"callboard:run:{run_id}") > 0 for run_id in expected)

    def test_a_database_that_is_away_holds_the_records(
        self,
        runs: Runs,
        archiver: Archiver,
        make_archiver: Callable[..., Archiver],
        redis_client: redis.Redis,
    ) -> None:
        run_id = end(runs)
        uri = f"mongodb://127.0.0.1:{free_port()}/x"
        with MongoClient[dict[str, Any]](uri, serverSelectionTimeoutMS=100) as nobody:
            away = History(nobody.get_default_database, SEALER)
            with pytest.raises(DatabaseUnavailable):
                make_archiver(away).turn()
            with pytest.raises(DatabaseUnavailable):
                away.find(run_id)
        assert redis_client.ttl(f"callboard:run:{run_id}") == -1
        forget_turn(redis_client)
        assert archiver.turn() == 1

    def test_a_forged_record_is_dropped_and_holds_nobody_up(
        self,
        runs: Runs,
        archiver: Archiver,
        database: Database[dict[str, Any]],
        redis_client: redis.Redis,
    ) -> None:
        forged, right = end(runs), end(runs)
        redis_client.hset(f"callboard:run:{forged}", "result", "x" * 1000)
        redis_client.lpush(KEYS.ended, "nonsense", f"{uuid4()} 7")
        assert archiver.turn() == 4
        assert [row["_id"] for row in database[RUNS].find()] == [right]

    def test_a_key_that_was_dropped_costs_the_result_only(
        self,
        runs: Runs,
        archiver: Archiver,
        database: Database[dict[str, Any]],
    ) -> None:
        run_id = end(runs)
        archiver.turn()
        found = History(lambda: database, Sealer(("x" * 40,))).find(run_id)
        assert found is not None
        assert (found.status, found.caller, found.outcome) == ("succeeded", "alice", None)

    def test_documents_leave_after_thirty_days(
        self, history: History, database: Database[dict[str, Any]]
    ) -> None:
        history.prepare()
        history.prepare()
        kept = [
            index["expireAfterSeconds"]
            for index in database[RUNS].list_indexes()
            if "expireAfterSeconds" in index
        ]
        assert kept == [30 * 86_400]


class TestStartedAgain:
    def test_worker_lost_is_kept_for_a_week_and_can_start_again(
        self, runs: Runs, archiver: Archiver, history: History, redis_client: redis.Redis
    ) -> None:
        run_id = end(runs, lost)
        archiver.turn()
        assert redis_client.ttl(f"callboard:run:{run_id}") > LOST_KEPT_SECONDS - 10
        record = runs.read(run_id)
        assert record is not None
        assert record.call is not None
        assert runs.retry(record, record.call)
        assert not runs.retry(record, record.call)
        assert redis_client.ttl(f"callboard:run:{run_id}") == -1
        assert redis_client.zscore(KEYS.live, run_id) is not None
        finish(runs, run_id)
        archiver.turn()
        found = history.find(run_id)
        assert found is not None
        assert (found.status, found.error, found.attempt) == ("succeeded", None, 2)

    def test_a_start_between_write_and_settle_keeps_the_record(
        self, runs: Runs, history: History, archiver: Archiver, redis_client: redis.Redis
    ) -> None:
        run_id = end(runs, lost)
        ended = Ended(redis_client, KEYS)
        taken = ended.take("slow", 60, 10)
        history.write([history.document(run) for run in taken], frozenset())
        record = runs.read(run_id)
        assert record is not None
        assert record.call is not None
        runs.retry(record, record.call)
        assert ended.settle([(run, 0) for run in taken]) == 1
        assert redis_client.ttl(f"callboard:run:{run_id}") == -1
        assert redis_client.zscore(KEYS.live, run_id) is not None
        finish(runs, run_id)
        forget_turn(redis_client)
        archiver.turn()
        found = history.find(run_id)
        assert found is not None
        assert found.status == "succeeded"

    def test_a_final_end_does_not(self, runs: Runs) -> None:
        record = runs.read(end(runs))
        assert record is not None
        assert not runs.retry(record, record.call)
