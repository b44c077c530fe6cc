"""Transactions: all or nothing, exactly once, and nothing in the way of the next writer."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from uuid import uuid4

import pytest

from callboard import fail, ok
from callboard.errors import DatabaseUnavailable, TransactionConflict
from callboard.sdk.collection import Collection
from callboard.sdk.results import StopHandler
from worker.tools.indexes import create_indexes
from worker.tools.transaction import MARKERS, kill_sessions

DIES_IN_A_TRANSACTION = """
import sys
from callboard.sdk.results import ok
from callboard.connections.mongodb import connect
from worker.tools.tools import Tools
from worker.tools.transaction import run_in_transaction

uri, run_id = sys.argv[1:]
database = connect(uri).get_default_database()

def body(transaction):
    tools = Tools(database=lambda: database, run_id=run_id, user_id="dead",
                  integration=lambda *_: ok(), transaction=transaction)
    tools.create("items", {"n": 2}, "shared").unwrap()
    tools.create("items", {"n": 2}).unwrap()
    print("holds", flush=True)
    sys.stdin.read()

run_in_transaction(database=lambda: database, run_id=run_id, action="a", deadline=None,
                   before_start=lambda session: print(session, flush=True), body=body)
"""


@pytest.fixture
def run(face, database, make_tools):
    """Run a handler as ``@action(transaction=True)`` does: ``run(handler, run_id=...)``."""

    def run(handler, *, run_id=None, deadline=None, before_start=lambda session_id: None):
        run_id = run_id or uuid4().hex
        return face.run_in_transaction(
            database=lambda: database,
            run_id=run_id,
            action="anAction",
            deadline=deadline,
            before_start=before_start,
            body=lambda transaction: handler(
                make_tools(run_id=run_id, deadline=deadline, transaction=transaction)
            ),
        )

    return run


def count(database, coll="items"):
    return database[coll].count_documents({})


def write_two(tools):
    tools.create("items", {"n": 1}).unwrap()
    tools.create("items", {"n": 2}, "x").unwrap()
    return ok({"done": tools.query("items").unwrap()["count"]})


class TestWholeHandler:
    def test_commits_the_writes_and_the_result(self, run, database):
        assert run(write_two).data == {"done": 2}
        assert (count(database), count(database, MARKERS)) == (2, 1)

    def test_others_see_nothing_before_the_commit(self, run, database):
        def handler(tools):
            result = write_two(tools)
            assert count(database) == 0
            return result

        run(handler)
        assert count(database) == 2

    def test_a_failure_leaves_nothing_behind(self, run, database):
        def handler(tools):
            write_two(tools)
            return fail("no")

        assert run(handler).error == "no"
        assert (count(database), count(database, MARKERS)) == (0, 0)

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
    def test_an_exception_leaves_nothing_behind(self, run, database, error):
        def handler(tools):
            write_two(tools)
            raise error

        with pytest.raises(error):
            run(handler)
        assert (count(database), count(database, MARKERS)) == (0, 0)

    @pytest.mark.parametrize("result", [None, {"success": True}])
    def test_what_is_no_result_commits_nothing(self, run, database, result):
        def handler(tools):
            write_two(tools)
            return result

        assert run(handler) is result
        assert (count(database), count(database, MARKERS)) == (0, 0)

    @pytest.mark.parametrize("data", [object(), float("nan")])
    def test_what_is_no_json_commits_nothing(self, run, database, data):
        def handler(tools):
            write_two(tools)
            return ok(data)

        with pytest.raises((TypeError, ValueError), match="JSON"):
            run(handler)
        assert (count(database), count(database, MARKERS)) == (0, 0)

    def test_a_rerun_answers_the_result_without_running_the_handler(self, run, database):
        first = run(write_two, run_id="r1")
        again = run(lambda tools: pytest.fail("ran again"), run_id="r1")
        assert again == first
        assert count(database) == 2

    def test_a_failed_run_may_run_again(self, run):
        assert not run(lambda tools: fail("no"), run_id="r1").success
        assert run(write_two, run_id="r1").success

    def test_the_session_is_told_before_anything_is_written(self, run, database):
        told = []
        run(write_two, before_start=lambda session: told.append((session, count(database))))
        [(session, seen)] = told
        assert len(session) == 36
        assert seen == 0

    def test_a_refusal_of_before_start_starts_nothing(self, run, database):
        def before_start(session):
            raise RuntimeError("not ours any more")

        with pytest.raises(RuntimeError):
            run(write_two, before_start=before_start)
        assert (count(database), count(database, MARKERS)) == (0, 0)

    def test_concurrent_runs_of_one_record_all_count(self, run, database):
        """Each conflict is retried with counters that start again: no step is lost."""
        database.items.insert_one({"_id": "x", "data": {"n": 0}})

        def add_one(tools):
            seen = tools.get("items", "x").unwrap()["record"]["data"]["n"]
            tools.create("log", {"seen": seen}).unwrap()
            return tools.update("items", "x", {"n": seen + 1})

        deadline = time.monotonic() + 90
        results = []
        threads = [
            threading.Thread(target=lambda: results.append(run(add_one, deadline=deadline)))
            for _ in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [result.success for result in results] == [True] * 6
        assert database.items.find_one()["data"]["n"] == 6
        assert sorted(row["data"]["seen"] for row in database.log.find()) == list(range(6))

    def test_two_workers_of_one_run_have_one_effect(self, run, database):
        deadline = time.monotonic() + 90
        results = []
        threads = [
            threading.Thread(
                target=lambda: results.append(run(write_two, run_id="r1", deadline=deadline))
            )
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [results[0]] * 4
        assert (count(database), count(database, MARKERS)) == (2, 1)

    def test_a_conflict_that_lasts_ends_as_retryable(self, run, database):
        database.items.insert_one({"_id": "x", "data": {}})
        with database.client.start_session() as rival, rival.start_transaction():
            database.items.update_one({"_id": "x"}, {"$set": {"rival": 1}}, session=rival)
            with pytest.raises(TransactionConflict):
                run(
                    lambda tools: tools.update("items", "x", {"n": 1}),
                    deadline=time.monotonic() + 3,
                )
        assert count(database, MARKERS) == 0

    def test_a_conflict_that_took_all_the_time_is_told_as_one(self, run):
        deadline, errors = time.monotonic() + 2, [TransactionConflict, DatabaseUnavailable]

        def handler(tools):
            if len(errors) == 1:
                threading.Event().wait(max(deadline - time.monotonic(), 0))
            raise errors.pop(0)

        with pytest.raises(TransactionConflict):
            run(handler, deadline=deadline)

    def test_a_conflict_counts_even_if_the_handler_hides_it(self, run, database):
        database.items.insert_one({"_id": "x", "data": {}})
        starts = []

        def handler(tools):
            starts.append(tools)
            try:
                with database.client.start_session() as rival, rival.start_transaction():
                    if len(starts) == 1:
                        rows = database.items
                        rows.update_one({"_id": "x"}, {"$set": {"rival": 1}}, session=rival)
                    tools.update("items", "x", {"n": 1}).unwrap()
            except TransactionConflict:
                return ok("all is well")
            return ok("second")

        assert run(handler).data == "second"
        assert len(starts) == 2

    def test_a_lost_database_ends_as_retryable(self, face, database):
        def body(transaction):
            raise DatabaseUnavailable("away")

        with pytest.raises(DatabaseUnavailable):
            face.run_in_transaction(
                database=lambda: database,
                run_id="r1",
                action="a",
                deadline=time.monotonic() + 0.2,
                before_start=lambda session: None,
                body=body,
            )
        assert count(database, MARKERS) == 0


class TestRefusedWrites:
    @pytest.fixture(autouse=True)
    def unique(self, database):
        create_indexes(database, {"users": Collection(unique=[("email",)])})
        database.users.insert_one({"_id": "a", "data": {"email": "a"}})

    DUPLICATE = "Duplicate: another record has the same email"

    def test_a_refused_write_dooms_the_transaction(self, run, database):
        def handler(tools):
            write_two(tools)
            assert tools.create("users", {"email": "a"}).error == self.DUPLICATE
            assert tools.get("items", "x").error == self.DUPLICATE
            assert tools.create("items", {}).error == self.DUPLICATE
            assert tools.integration("a/b").error == self.DUPLICATE
            return ok("all is well")

        assert run(handler).error == self.DUPLICATE
        assert (count(database), count(database, MARKERS), count(database, "users")) == (0, 0, 1)

    def test_too_large_a_record_dooms_it_too(self, run, database):
        def handler(tools):
            tools.create("items", {}, "x").unwrap()
            tools.create("items", {"a": "x" * 17_000_000}, "y")
            return ok()

        assert run(handler).error.startswith("Record too large")
        assert count(database) == 0

    def test_a_data_error_that_never_reached_the_database_does_not(self, run, database):
        def handler(tools):
            assert not tools.create("items", {"$x": 1}).success
            assert not tools.get("items", "missing").success
            return write_two(tools)

        assert run(handler).success
        assert count(database) == 2

    def test_a_part_is_doomed_as_a_whole_is(self, make_tools, database):
        def handler(tools):
            with tools.transaction():
                tools.create("items", {}, "x").unwrap()
                tools.create("users", {"email": "a"})

        with pytest.raises(StopHandler) as stopped:
            handler(make_tools())
        assert stopped.value.result.error == self.DUPLICATE
        assert count(database) == 0


class TestPart:
    def test_commits_at_the_end_of_the_block(self, tools, database):
        with tools.transaction():
            tools.create("items", {}, "x").unwrap()
            assert tools.get("items", "x").success
            assert count(database) == 0
        assert count(database) == 1

    def test_an_exception_rolls_it_back(self, tools, database):
        def handler():
            with tools.transaction():
                tools.create("items", {}, "x").unwrap()
                raise ValueError("stop")

        tools.create("items", {}, "before").unwrap()
        with pytest.raises(ValueError, match="stop"):
            handler()
        tools.create("items", {}, "after").unwrap()
        assert [row["_id"] for row in database.items.find().sort("_id", 1)] == ["after", "before"]

    def test_two_parts_one_after_the_other(self, tools, database):
        for name in "ab":
            with tools.transaction():
                tools.create("items", {}, name).unwrap()
        assert count(database) == 2

    def test_a_part_inside_a_part_is_refused(self, tools, database):
        def handler():
            with tools.transaction():
                tools.create("items", {}, "x").unwrap()
                with tools.transaction():
                    pytest.fail("entered")

        with pytest.raises(StopHandler) as stopped:
            handler()
        assert "leave the inner one out" in stopped.value.result.error
        assert count(database) == 0

    def test_a_part_inside_a_transaction_action_is_refused(self, run):
        def handler(tools):
            with tools.transaction():
                return pytest.fail("entered")

        with pytest.raises(StopHandler, match="unwrap"):
            run(handler)

    def test_the_session_is_told_first(self, make_tools):
        told = []
        with make_tools(on_session=told.append).transaction():
            assert len(told) == 1

    def test_a_conflict_ends_the_attempt_whatever_the_handler_does(self, tools, database):
        def handler():
            with tools.transaction():
                tools.create("items", {}, "y").unwrap()
                with contextlib.suppress(TransactionConflict):
                    tools.update("items", "x", {"n": 1})

        database.items.insert_one({"_id": "x", "data": {}})
        with database.client.start_session() as rival, rival.start_transaction():
            database.items.update_one({"_id": "x"}, {"$set": {"rival": 1}}, session=rival)
            with pytest.raises(TransactionConflict):
                handler()
        assert isinstance(tools.lost, TransactionConflict)
        with pytest.raises(TransactionConflict):
            tools.get("items", "x")
        assert count(database) == 1


class TestKilledWorker:
    @pytest.fixture
    def killed(self, database, mongodb_uri):
        """The run id and session of a process that was killed inside its transaction."""
        database.items.insert_one({"_id": "shared", "data": {"n": 1}})
        run_id = uuid4().hex
        child = subprocess.Popen(
            [sys.executable, "-c", DIES_IN_A_TRANSACTION, mongodb_uri, run_id],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with child:
            session = child.stdout.readline().strip()
            assert child.stdout.readline() == "holds\n"
            child.kill()
        return run_id, session

    def test_nothing_is_left(self, killed, database):
        assert [row["data"] for row in database.items.find()] == [{"n": 1}]
        assert count(database, MARKERS) == 0
        kill_sessions(database, [killed[1]])

    def test_the_next_writer_does_not_wait_once_the_session_is_killed(
        self, killed, database, make_tools
    ):
        with pytest.raises(DatabaseUnavailable):
            make_tools(deadline=time.monotonic() + 0.5).create("items", {"late": 1}, "shared")
        kill_sessions(database, [killed[1]])
        started = time.monotonic()
        make_tools(deadline=started + 90).create("items", {"n": 4}, "shared").unwrap()
        assert time.monotonic() - started < 15  # by itself it is over after a minute
        assert database.items.find_one({"_id": "shared"})["data"]["n"] == 4

    def test_a_rerun_has_its_effect_once(self, killed, face, database, run):
        run_id, session = killed
        face.kill_sessions(database, [session])
        result = run(
            lambda tools: tools.update("items", "shared", {"n": 5}),
            run_id=run_id,
            deadline=time.monotonic() + 60,
        )
        assert result.success
        assert database.items.find_one({"_id": "shared"})["data"] == {"n": 5}
        assert count(database, MARKERS) == 1

    def test_killing_an_unknown_session_is_harmless(self, face, database):
        face.kill_sessions(database, [str(uuid4())])

    def test_the_killed_transaction_of_a_live_worker_commits_nothing(self, run, database):
        sessions = []

        def handler(tools):
            if len(sessions) == 1:
                write_two(tools)
                kill_sessions(database, [sessions[0]])
                sessions.append("killed")
                return ok("first")
            return ok("second")

        assert run(handler, before_start=sessions.append).data == "second"
        assert count(database) == 0
