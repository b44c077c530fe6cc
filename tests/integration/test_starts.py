"""`ctx.start` and its like: exactly the runs that were started, once, with the writes."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import uuid4

import pytest
import redis
import redis.asyncio
import structlog
from faces import LoopThread
from forked import exit_code
from pymongo.database import Database
from structlog.testing import capture_logs

from callboard import ActionContext, ActionResult, AsyncActionContext, Limit, action, fail, ok
from callboard.connections.keys import Keys
from callboard.connections.mongodb import TIMEOUT, AsyncStore, Store
from callboard.errors import BadRequest
from callboard.registry import Registry
from callboard.runs.children import MAX_CHILDREN, MAX_DEPTH
from callboard.runs.outbox import OUTBOX, Row
from callboard.runs.outcome import Outcome
from callboard.runs.record import RunRecord
from callboard.runs.seal import CALL_LIFETIME, Call
from callboard.runs.start import Start
from callboard.runs.store import Runs
from callboard.runs.waiting import WaitingRuns
from callboard.settings import Settings
from worker.archive.archiver import Archiver
from worker.lease.sweeping import Sweeping
from worker.loop.execution import Executor
from worker.loop.running import Running
from worker.loop.runs import AsyncRuns
from worker.outbox.publisher import TURN_SECONDS, Publisher
from worker.runs.execution import execute
from worker.runs.starts import Starts
from worker.services import Services

KEYS = Keys()
Steps = list[tuple[str, tuple[Any, ...], dict[str, Any]]]

script: list[Callable[[Any], Any]] = []  # what the handlers below do, in order
answers: list[Any] = []


def follow(ctx: ActionContext) -> ActionResult:
    for step in script:
        answers.append(step(ctx))
    return ok()


@action
def parent(ctx: ActionContext) -> ActionResult:
    return follow(ctx)


@action(transaction=True)
def committing(ctx: ActionContext) -> ActionResult:
    result = follow(ctx)
    return fail("rolled back") if ctx.params.get("fail") else result


@action
def in_part(ctx: ActionContext) -> ActionResult:
    try:
        with ctx.tools.transaction():
            follow(ctx)
            if ctx.params.get("fail"):
                raise KeyError
    except KeyError:
        return fail("rolled back")
    return ok()


@action
async def parent_async(ctx: AsyncActionContext) -> ActionResult:
    for step in script:
        answers.append(await step(ctx))
    return ok()


@action
async def in_part_async(ctx: AsyncActionContext) -> ActionResult:
    try:
        async with ctx.tools.transaction():
            for step in script:
                answers.append(await step(ctx))
            if ctx.params.get("fail"):
                raise KeyError
    except KeyError:
        return fail("rolled back")
    return ok()


@action(internal=True)
def child(ctx: ActionContext, params: dict[str, int]) -> ActionResult:
    return ok(params.get("n")) if params.get("n") != 2 else fail("two")


@action(owner_only=True)
def for_owner(ctx: ActionContext) -> ActionResult:
    return ok(ctx.user_id)


@action
def after(ctx: ActionContext) -> ActionResult:
    return ok([end["result"].get("data", end["result"].get("error")) for end in ctx.results()])


@action
async def after_async(ctx: AsyncActionContext) -> ActionResult:
    return ok([end["status"] async for end in ctx.results()])


@action(limit=Limit(concurrency=1, key=lambda params: params["tenant"]))
def limited(ctx: ActionContext) -> ActionResult:
    return ok()


ALL = (parent, committing, in_part, parent_async, in_part_async, child, for_owner, after, limited)
REGISTRY = Registry(actions={each.name: each for each in (*ALL, after_async)})


@pytest.fixture(autouse=True)
def fresh() -> None:
    script.clear()
    answers.clear()


@pytest.fixture
def services(variables: dict[str, str], mongodb_uri: str) -> Iterator[Services]:
    given = {**variables, "SECRET_KEY": "k" * 40, "OWNER_USER_ID": "owner"}
    services = Services(Settings(**given), REGISTRY)
    services.store = Store(mongodb_uri)
    yield services
    services.runs.close()
    services.store.close()


@pytest.fixture
def publisher(services: Services) -> Iterator[Publisher]:
    publisher = Publisher(services)
    publisher.turn()
    yield publisher
    publisher._runs.close()


@pytest.fixture
def publishing(services: Services) -> Iterator[Callable[[int], None]]:
    """So many workers' publishers, at work: ``publishing(2)``."""
    begun: dict[Publisher, threading.Thread] = {}

    def begin(count: int) -> None:
        for _ in range(count):
            publisher = Publisher(services)
            begun[publisher] = threading.Thread(target=publisher._run)
            begun[publisher].start()

    yield begin
    for publisher, thread in begun.items():
        publisher.stop()
        thread.join()


@pytest.fixture
def run(
    services: Services, loop_thread: LoopThread, redis_url: str, mongodb_uri: str, redis_client
):
    """Runs an action to its end: ``run("parent")``; with an id, that run (again)."""
    clients, kept = [], {}

    async def on_loop(name: str, run_id: str) -> None:
        client = redis.asyncio.Redis.from_url(redis_url)
        store = AsyncStore(mongodb_uri)
        clients.append((client, store))
        executor = Executor(services, AsyncRuns(client, services.sealer, services.keys), store)
        await executor.execute(Running(run_id, REGISTRY.get(name), 1))

    def run(
        name: str, run_id: str = "", *, rerun: bool = False, caller: str | None = "alice",
        **call: Any,
    ) -> str:  # fmt: skip
        run_id = run_id or str(uuid4())
        record = f"callboard:run:{run_id}"
        made = Call(caller=caller, claims={"role": "x"}, jwt="a.b.c", **call)
        found = REGISTRY.get(name)
        if rerun:  # its worker has died before it could end it: another takes it over
            redis_client.delete(record)
            died = {"status": "running", "lease": 1, "holder": "dead", "attempt": 1}
            redis_client.hset(record, mapping={**kept[run_id], **died})
        else:
            services.runs.accept(run_id, found, made, max_queue=9999, result_ttl=60)
            kept[run_id] = redis_client.hgetall(record)
        if found.is_async:
            loop_thread.run(on_loop(name, run_id))
        else:
            execute(services, found, run_id, tuple)
        return run_id

    async def close() -> None:
        for client, store in clients:
            await client.aclose()
            await store.close()

    yield run
    loop_thread.run(close())


def read(runs: Runs, run_id: str) -> RunRecord:
    record = runs.read(run_id)
    assert record is not None
    return record


def look(client: redis.Redis, run_id: str) -> None:
    """Have the next sweep look at this run."""
    assert client.zscore(KEYS.open, run_id) is not None
    client.zadd(KEYS.open, {run_id: 1})
    client.delete(KEYS.sweep)


def ids(database: Database[Any]) -> list[str]:
    return [row["_id"] for row in database[OUTBOX].find()]


BOTH = pytest.mark.parametrize("name", ["parent", "parentAsync"])
PARTS = pytest.mark.parametrize("name", ["committing", "inPart", "inPartAsync"])


class TestOutsideATransaction:
    @BOTH
    def test_a_child_is_queued_at_once_as_its_parents_caller(
        self, run, runs: Runs, name: str
    ) -> None:
        script.append(lambda ctx: ctx.start("child", {"n": 1}))
        parent_id = run(name)
        [started] = answers
        record = read(runs, started.unwrap()["runId"])
        assert (record.status, record.caller, record.parent) == ("queued", "alice", parent_id)
        call = record.call
        assert call is not None
        assert (call.params, call.claims, call.jwt) == ({"n": 1}, {"role": "x"}, "a.b.c")
        assert (call.depth, call.scheduled) == (1, False)

    @BOTH
    def test_later_is_waiting(self, run, runs: Runs, database: Database[Any], name: str) -> None:
        at = datetime.now(UTC) + timedelta(hours=2)
        script.append(lambda ctx: ctx.start("child", delay=60))
        script.append(lambda ctx: ctx.start("child", at=at))
        script.append(lambda ctx: ctx.start("child", delay=2 * 86_400))
        run(name)
        soon, later, token = (read(runs, each.unwrap()["runId"]) for each in answers)
        for record, seconds in ((soon, 60), (later, 7200), (token, 2 * 86_400)):
            assert record.status == "waiting"
            assert record.due is not None
            assert record.call is not None
            assert abs(record.due - record.enqueued - seconds * 1000) < 30_000
            assert abs(record.call.expires - time.time() - seconds - CALL_LIFETIME) < 60
        assert sorted(ids(database)) == sorted([later.id, token.id])  # survive the loss of Redis
        assert later.call is not None
        assert token.call is not None
        assert (later.call.jwt, token.call.jwt) == ("a.b.c", None)

    @BOTH
    def test_a_rerun_starts_no_second_child(
        self, run, runs: Runs, services: Services, redis_client: redis.Redis, archiver: Archiver,
        name: str,
    ) -> None:  # fmt: skip
        script.append(lambda ctx: ctx.start("child", {"n": 1}))
        script.append(lambda ctx: ctx.start("child", {"n": 3}, delay=9))
        script.append(lambda ctx: ctx.start_all([("child", {"n": 4})]))
        parent_id = run(name)
        first = [answer.unwrap() for answer in answers]
        execute(services, child, first[0]["runId"], tuple)
        archiver.turn()
        redis_client.delete(f"callboard:run:{first[0]['runId']}")  # it has left Redis
        answers.clear()
        run(name, parent_id, rerun=True)
        assert [answer.unwrap() for answer in answers] == first
        assert runs.read(first[0]["runId"]) is None
        queue = b"".join(redis_client.lrange("callboard", 0, -1))
        assert queue.count(first[2]["runIds"][0].encode()) == 2  # its id, as the tag and the id

    @BOTH
    def test_one_key_is_one_run(self, run, runs: Runs, redis_client, name: str) -> None:
        script.append(lambda ctx: ctx.start("child", {"n": 1}, key="k"))
        script.append(lambda ctx: ctx.start("child", {"n": 1}, key="k"))
        run(name)
        run(name)
        assert len({answer.unwrap()["runId"] for answer in answers}) == 1
        script[:] = [lambda ctx: ctx.start("child", {"n": 2}, key="k")]
        answers.clear()
        run(name)
        assert "other params" in answers[0].error

    @BOTH
    def test_a_full_queue_keeps_it_in_the_outbox(
        self, run, runs: Runs, publisher: Publisher, redis_client, database, name: str
    ) -> None:
        script.append(lambda ctx: redis_client.lpush("callboard", *range(10_000)) and _none(ctx))
        script.append(lambda ctx: ctx.start("child", {"n": 1}))
        run(name)
        run_id = answers[1].unwrap()["runId"]
        assert ids(database) == [run_id]
        assert runs.read(run_id) is None
        redis_client.delete("callboard")
        publisher.turn()
        assert read(runs, run_id).status == "queued"
        assert ids(database) == []

    @BOTH
    @pytest.mark.parametrize(
        ("start", "told"),
        [
            (("chlid",), "Did you mean 'child'"),
            ((7,), "an action's name"),
            (("child", [1]), "params must be an object"),
            (("child", {"n": "x"}), "n: "),
            (("child", {"n": float("nan")}), "not JSON"),
            (("forOwner",), "owner only"),
            (("limited", {"n": 1}), "'limited' has no key for this call: KeyError was raised"),
        ],
    )
    def test_what_is_wrong_is_a_failure(self, run, redis_client, name, start, told) -> None:
        script.append(lambda ctx: ctx.start(*start))
        script.append(lambda ctx: ctx.start_all([("child", {}), (*start, {})[:2]]))
        script.append(lambda ctx: ctx.start_all([], then=(*start, {})[:2]))
        run(name)
        assert told in answers[0].error
        assert told in answers[1].error
        assert "call 1" in answers[1].error
        assert "then: " in answers[2].error
        assert b"child" not in b"".join(redis_client.lrange("callboard", 0, -1))

    @pytest.mark.parametrize(
        ("options", "told"),
        [
            ({"delay": "1"}, "seconds"),
            ({"delay": -1}, "0 or more"),
            ({"delay": float("nan")}, "0 or more"),
            ({"delay": 367 * 86_400}, "366 days"),
            ({"at": "2026-01-01"}, "timezone"),
            ({"at": datetime(2026, 1, 1)}, "timezone"),  # noqa: DTZ001
            ({"at": datetime(9999, 1, 1, tzinfo=UTC)}, "366 days"),
            ({"at": datetime.max.replace(tzinfo=timezone(-timedelta(hours=5)))}, "366 days"),
            ({"at": datetime.now(UTC), "delay": 1}, "either"),
            ({"key": ""}, "1..255"),
            ({"key": 7}, "text"),
        ],
    )
    def test_a_wrong_option_is_a_failure(self, run, options, told) -> None:
        script.append(lambda ctx: ctx.start("child", **options))
        run("parent")
        assert told in answers[0].error

    def test_what_is_long_past_starts_at_once(self, run, runs: Runs) -> None:
        first = datetime.min.replace(tzinfo=timezone(timedelta(hours=5)))
        script.append(lambda ctx: ctx.start("child", at=first))
        run("parent")
        assert read(runs, answers[0].unwrap()["runId"]).status == "queued"

    @BOTH
    def test_a_refused_one_of_many_has_its_own_code_and_counts_for_nothing(
        self, run, name: str
    ) -> None:
        script.append(lambda ctx: ctx.start_all([("child", {})] * 9_999 + [("chlid", {})]))
        script.append(lambda ctx: ctx.start_all([("child", {"n": "x"})]))
        script.append(lambda ctx: ctx.start_all([], then=("forOwner", {})))
        script.append(lambda ctx: ctx.start("chlid"))
        script.append(lambda ctx: ctx.start_all([("child", {})] * 2))
        run(name)
        codes = ["unknown_action", "invalid_params", "forbidden", "unknown_action", None]
        assert [answer.code for answer in answers] == codes

    @BOTH
    def test_a_later_start_whose_key_leads_elsewhere_leaves_no_row(
        self, run, database: Database[Any], name: str
    ) -> None:
        script.append(lambda ctx: ctx.start("child", {"n": 1}, key="k"))
        script.append(lambda ctx: ctx.start("child", {"n": 1}, key="k", delay=40 * 86_400))
        script.append(lambda ctx: ctx.start("child", {"n": 3}, key="k", delay=40 * 86_400))
        run(name)
        assert answers[0] == answers[1]
        assert answers[2].code == "key_reused"
        assert ids(database) == []  # which would start another run once the key has expired

    def test_the_owners_identity_is_asked_for_and_logged(
        self, run, runs: Runs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # the module's own may be bound to what was configured before another test did it anew
        monkeypatch.setattr("worker.runs.parent._log", structlog.get_logger())
        script.append(lambda ctx: ctx.start("forOwner", as_owner=True))
        script.append(lambda ctx: ctx.start("forOwner", as_owner=True, key="k"))
        with capture_logs() as lines:
            run("parent")
        ids = [answer.unwrap()["runId"] for answer in answers]
        record = read(runs, ids[0])
        assert record.caller == "owner"
        assert record.call is not None
        assert (record.call.jwt, record.call.claims) == (None, {})
        logged = [line["run_id"] for line in lines if line["event"] == "started as the owner"]
        assert logged == ids

    def test_only_true_asks_for_the_owners_identity(self, run) -> None:
        script.append(lambda ctx: ctx.start("forOwner", as_owner="false"))
        run("parent")
        assert answers[0].error == "as_owner must be True or False, not 'false'"

    def test_an_anonymous_run_starts_internal_actions(self, run, runs: Runs) -> None:
        script.append(lambda ctx: ctx.start("child", {"n": 1}))
        script.append(lambda ctx: ctx.start("parent"))
        run("parent", caller=None)
        assert read(runs, answers[0].unwrap()["runId"]).caller is None
        assert "callers who are known" in answers[1].error

    def test_how_deep_and_how_many_is_bounded(self, run) -> None:
        script.append(lambda ctx: ctx.start("child", {}))
        run("parent", depth=MAX_DEPTH, parent="p")
        assert f"{MAX_DEPTH} deep" in answers[0].error
        answers.clear()
        script[:] = [
            lambda ctx: ctx.start_all([("child", {})] * (MAX_CHILDREN + 1)),
            lambda ctx: ctx.start("child", {}) and None,
            lambda ctx: ctx.start_all([("child", {})] * MAX_CHILDREN, then=("after", {})),
        ]
        run("parent")
        assert "at most 10000 runs, not 10001" in answers[0].error
        assert "at most 10000 runs" in answers[2].error


class TestInATransaction:
    @PARTS
    def test_it_starts_when_that_commits(
        self, run, runs: Runs, database: Database[Any], redis_client, name: str
    ) -> None:
        script.append(lambda ctx: ctx.tools.create("events", {"n": 1}))
        script.append(lambda ctx: ctx.start("child", {"n": 1}))
        script.append(lambda ctx: ctx.start_all([("child", {})] * 3, then=("after", {})))
        script.append(lambda ctx: _count(ctx, redis_client))
        run(name)
        assert answers.pop() == 1  # before the commit: the parent
        one, many = answers[1].unwrap()["runId"], answers[2].unwrap()
        assert database["events"].count_documents({}) == 1
        assert read(runs, one).status == "queued"
        assert {read(runs, each).status for each in many["runIds"]} == {"queued"}
        assert read(runs, many["thenRunId"]).status == "waiting"
        assert ids(database) == []  # published at once

    @PARTS
    def test_rolled_back_it_starts_nothing(
        self, run, runs: Runs, database: Database[Any], publisher: Publisher, name: str
    ) -> None:
        script.append(lambda ctx: ctx.start("child", {"n": 1}))
        script.append(lambda ctx: ctx.start("child", delay=7200))
        run(name, params={"fail": True})
        assert ids(database) == []
        publisher.turn()
        for answer in answers:
            assert runs.read(answer.unwrap()["runId"]) is None

    @pytest.mark.parametrize("name", ["committing", "inPart"])
    def test_a_crash_after_the_commit_is_made_good_by_any_worker(
        self, run, runs: Runs, services: Services, database: Database[Any], publisher: Publisher,
        redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch, name: str,
    ) -> None:  # fmt: skip
        script.append(lambda ctx: ctx.start("child", {"n": 1}))
        script.append(lambda ctx: ctx.start("child", {"n": 1}, delay=60))
        with monkeypatch.context() as broken:
            broken.setattr("worker.runs.starts.PUBLISH_SECONDS", -1)  # as if it had died
            parent_id = run(name)
        started = [answer.unwrap()["runId"] for answer in answers]
        assert sorted(ids(database)) == sorted(started)
        assert [runs.read(run_id) for run_id in started] == [None, None]
        publisher.turn()
        assert [read(runs, run_id).status for run_id in started] == ["queued", "waiting"]
        execute(services, child, started[0], tuple)
        run(name, parent_id, rerun=True)
        publisher.turn()
        assert read(runs, started[0]).status == "succeeded"
        assert b"".join(redis_client.lrange("callboard", 0, -1)).count(started[0].encode()) <= 2

    @pytest.mark.parametrize("name", ["committing", "inPart"])
    def test_a_process_that_is_killed_between_commit_and_publish_costs_its_child_seconds(
        self, run, runs: Runs, services: Services, database: Database[Any],
        redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch, publishing, eventually,
        name: str,
    ) -> None:  # fmt: skip
        """Two workers meet at the row that it leaves; then one takes over the run that it had."""
        parent_id = str(uuid4())
        redis_client.set(KEYS.outbox, 1)  # Redis is in order
        script.append(lambda ctx: ctx.tools.create("events", {"n": 1}))
        script.append(lambda ctx: ctx.start("child", {"n": 1}))
        with monkeypatch.context() as dying:
            dying.setattr(Starts, "_publish", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
            assert exit_code(lambda: run(name, parent_id)) == -signal.SIGKILL
        [child_id] = ids(database)
        assert runs.read(child_id) is None
        publishing(2)
        eventually(lambda: runs.read(child_id) and not ids(database))
        execute(services, child, child_id, tuple)
        redis_client.hset(KEYS.run(parent_id), "lease", 1)
        execute(services, REGISTRY.get(name), parent_id, tuple)
        assert read(runs, parent_id).status == "succeeded"
        eventually(lambda: not ids(database))
        assert database["events"].count_documents({}) == 1
        messages = redis_client.lrange("callboard", 0, -1)
        assert sum(child_id.encode() in message for message in messages) == 1

    def test_a_process_that_stalls_after_the_commit_starts_nothing_twice(
        self, run, runs: Runs, services: Services, publisher: Publisher, archiver: Archiver,
        redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        """Meanwhile another has published the child, it has ended, and its record has expired."""
        short = services.settings.model_copy(update={"result_ttl": 2})
        monkeypatch.setattr(services, "settings", short)
        publish = Starts._publish

        def late(self: Starts, rows: list[Any], made: float) -> None:
            publisher.turn()
            [child_id] = (row.start.run_id for row in rows)
            execute(services, child, child_id, tuple)
            archiver.turn()
            redis_client.delete(KEYS.run(child_id))
            publish(self, rows, made - short.result_ttl)

        monkeypatch.setattr(Starts, "_publish", late)
        script.append(lambda ctx: ctx.start("child", {"n": 1}))
        run("committing")
        assert runs.read(answers[0].unwrap()["runId"]) is None

    def test_what_is_left_over_is_found_within_seconds(self) -> None:
        assert TURN_SECONDS + TIMEOUT < 5

    def test_a_key_that_is_known_writes_no_row(
        self, run, database: Database[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        script.append(lambda ctx: ctx.start("child", {"n": 1}, key="k"))
        run("parent")
        monkeypatch.setattr("worker.runs.starts.PUBLISH_SECONDS", -1)
        run("inPart")
        assert ids(database) == []
        assert answers[0] == answers[1]
        script[:] = [lambda ctx: ctx.start("child", {"n": 3}, key="k")]
        run("inPart")
        assert "other params" in answers[2].error

    @PARTS
    def test_two_starts_under_one_key_are_one_run(
        self, run, runs: Runs, database: Database[Any], name: str
    ) -> None:
        script.append(lambda ctx: ctx.start("child", {"n": 1}, key="k"))
        script.append(lambda ctx: ctx.start("child", {"n": 1}, key="k", delay=40 * 86_400))
        script.append(lambda ctx: ctx.start("child", {"n": 3}, key="k"))
        run(name)
        first, later, other = answers
        assert first == later
        assert read(runs, first.unwrap()["runId"]).status == "queued"
        assert other.code == "key_reused"
        assert ids(database) == []

    @PARTS
    def test_a_key_that_another_took_meanwhile_leaves_no_row(
        self, run, publisher: Publisher, database: Database[Any],
        monkeypatch: pytest.MonkeyPatch, name: str,
    ) -> None:  # fmt: skip
        monkeypatch.setattr("worker.runs.starts.PUBLISH_SECONDS", -1)
        for number in (1, 3):  # neither sees the other's
            script[:] = [
                lambda ctx, n=number: ctx.start("child", {"n": n}, key="k", delay=(n + 1) * 86_400)
            ]
            run(name)
        script[:] = [lambda ctx: ctx.start("child", {"n": 1}, key="k", delay=40 * 86_400)]
        run(name)
        assert len(ids(database)) == 3
        publisher.turn()
        assert len(ids(database)) == 1

    @BOTH
    @pytest.mark.parametrize("commits", [True, False])
    def test_a_start_after_one_that_was_rolled_back_is_made(
        self, run, runs: Runs, name: str, commits: bool
    ) -> None:
        part = "inPartAsync" if name == "parentAsync" else "inPart"
        script.append(lambda ctx: ctx.start("child", {"n": 1}, key="k"))
        run(part, params={"fail": not commits})
        script[:] = [lambda ctx: ctx.start("child", {"n": 3}, key="k")]
        run(name)
        assert answers[1].success is not commits
        made = answers[0 if commits else 1].unwrap()["runId"]
        assert read(runs, made).status == "queued"


@pytest.mark.parametrize("name", ["parent", "parentAsync", "committing"])
def test_what_is_over_a_limit_waits_for_a_slot(run, runs: Runs, name: str) -> None:
    calls = [("limited", {"tenant": tenant}) for tenant in "aab"]
    script.append(lambda ctx: ctx.start_all(calls, then=("limited", {"tenant": "b"})))
    run(name)
    [started] = answers
    waiting = [read(runs, each).waiting_for for each in started.unwrap()["runIds"]]
    assert waiting == [None, {"kind": "slot"}, None]
    for run_id in started.unwrap()["runIds"]:
        runs.cancel(run_id, "limited", Outcome.canceled(run_id))
    assert read(runs, started.unwrap()["thenRunId"]).status == "queued"


def test_a_row_whose_key_cannot_be_told_stays_and_holds_no_other_up(
    services: Services, publisher: Publisher, runs: Runs, database: Database[Any]
) -> None:
    """It was promised, by a version whose key could be told: the next may have one again."""
    made = [
        Start(run_id=str(uuid4()), action=limited, call=Call(caller="alice", params=params))
        for params in ({}, {"tenant": "a"})
    ]
    publisher._outbox.put([Row(start=start) for start in made])
    publisher.turn()
    assert ids(database) == [made[0].run_id]
    assert runs.read(made[0].run_id) is None
    assert read(runs, made[1].run_id).status == "queued"


class TestGroups:
    @BOTH
    @pytest.mark.parametrize(
        ("then", "told"),
        [
            ("after", [0, 1, "two", "Canceled", 4]),
            ("afterAsync", ["succeeded", "succeeded", "failed", "canceled", "succeeded"]),
        ],
    )
    def test_it_joins_once_and_reads_the_ends_wherever_they_are(
        self, run, runs: Runs, services: Services, archiver: Archiver, redis_client, name, then,
        told,
    ) -> None:  # fmt: skip
        script.append(
            lambda ctx: ctx.start_all([("child", {"n": n}) for n in range(5)], then=(then, {}))
        )
        run(name)
        started = answers[0].unwrap()
        children, then_id = started["runIds"], started["thenRunId"]
        assert read(runs, then_id).waiting_for == {"kind": "group"}
        services_cancel(runs, children[3])
        for run_id in (*children[:3], children[4]):
            assert read(runs, then_id).status == "waiting"
            execute(services, child, run_id, tuple)
        archiver.turn()
        redis_client.delete(f"callboard:run:{children[0]}")
        assert read(runs, then_id).status == "queued"
        run(then, then_id)
        outcome = read(runs, then_id).outcome
        assert outcome is not None
        assert outcome.envelope()["data"] == told

    @pytest.mark.parametrize("lost", ["before its runs have ended", "between two of them"])
    def test_what_waits_for_a_group_that_redis_has_lost_ends(
        self, run, runs: Runs, services: Services, redis_client, lost: str
    ) -> None:
        script.append(
            lambda ctx: ctx.start_all([("child", {"n": n}) for n in range(2)], then=("after", {}))
        )
        run("parent")
        started = answers[0].unwrap()
        children, then_id = started["runIds"], started["thenRunId"]
        [group] = redis_client.keys(KEYS.group("*"))
        if lost == "before its runs have ended":
            redis_client.delete(group)
        execute(services, child, children[0], tuple)
        redis_client.delete(group)
        execute(services, child, children[1], tuple)
        sweeping = Sweeping(runs)
        look(redis_client, then_id)
        with capture_logs() as lines:
            sweeping.turn()
        assert [line["run_id"] for line in lines] == [then_id]
        record = read(runs, then_id)
        assert (record.status, record.error) == ("failed", "Expired")
        assert redis_client.zscore(KEYS.open, then_id) is None
        messages = redis_client.lrange("callboard", 0, -1)
        assert not any(then_id.encode() in message for message in messages)

    def test_one_whose_group_is_there_waits_on(
        self, run, runs: Runs, services: Services, redis_client
    ) -> None:
        script.append(
            lambda ctx: ctx.start_all([("child", {"n": n}) for n in range(2)], then=("after", {}))
        )
        run("parent")
        started = answers[0].unwrap()
        sweeping = Sweeping(runs)
        execute(services, child, started["runIds"][0], tuple)
        look(redis_client, started["thenRunId"])
        sweeping.turn()
        assert read(runs, started["thenRunId"]).status == "waiting"
        assert redis_client.zscore(KEYS.open, started["thenRunId"]) > time.time() * 1000
        execute(services, child, started["runIds"][1], tuple)
        look(redis_client, started["thenRunId"])
        redis_client.delete(KEYS.sweep)  # another's turn
        sweeping.turn()
        assert read(runs, started["thenRunId"]).status == "queued"

    def test_there_are_no_results_without_a_group(self, run, runs: Runs) -> None:
        outcome = read(runs, run("after")).outcome
        assert outcome is not None
        assert outcome.envelope()["data"] == []

    def test_a_rerun_goes_on_where_it_was_cut_off(
        self, run, runs: Runs, services: Services, redis_client, monkeypatch
    ) -> None:
        script.append(
            lambda ctx: ctx.start_all([("child", {"n": n}) for n in range(5)], then=("after", {}))
        )
        parent_id = run("parent")
        started = answers[0].unwrap()
        for run_id in started["runIds"][2:]:  # as if it had not come so far
            redis_client.delete(f"callboard:run:{run_id}")
        execute(services, child, started["runIds"][0], tuple)
        run("parent", parent_id, rerun=True)
        for run_id in started["runIds"]:
            assert read(runs, started["thenRunId"]).status == "waiting"
            execute(services, child, run_id, tuple)
            if run_id == started["runIds"][-1]:
                assert read(runs, started["thenRunId"]).status == "queued"

    def test_a_parent_that_ends_on_the_way_leaves_nothing_waiting(
        self, run, runs: Runs, services: Services, redis_client, monkeypatch
    ) -> None:
        accept, taken = services.runs.accept_many, []

        def accept_some(starts: list[Start], **limits: int) -> Any:
            if taken:
                raise ValueError
            taken.extend(accept(starts, **limits))
            return taken

        monkeypatch.setattr("worker.runs.starts.AT_ONCE", 2)
        monkeypatch.setattr(services.runs, "accept_many", accept_some)
        script.append(lambda ctx: ctx.start_all([("child", {})] * 5, then=("after", {})))
        assert read(runs, run("parent")).status == "failed"
        started = [run_id for run_id, _joined in taken]
        assert [read(runs, run_id).status for run_id in started] == ["queued"] * 2
        keys = redis_client.scan_iter("callboard:run:*")
        assert b"waiting" not in [redis_client.hget(key, "status") for key in keys]


class TestResult:
    def test_it_comes_when_the_run_has_ended(
        self, run, runs: Runs, services: Services, loop_thread: LoopThread
    ) -> None:
        async def end_soon(ctx: AsyncActionContext) -> ActionResult:
            started = await ctx.start("child", {"n": 7})
            run_id = started.unwrap()["runId"]
            waiting = asyncio.create_task(ctx.result(run_id))
            await asyncio.to_thread(execute, services, child, run_id, tuple)
            return await waiting

        script.append(end_soon)
        run("parentAsync")
        assert answers == [ok(7)]

    def test_it_is_bounded_and_for_the_callers_own_runs(
        self, run, services: Services, archiver: Archiver, redis_client
    ) -> None:
        bobs = run("parent", caller="bob")
        mine = run("parent")
        archiver.turn()
        redis_client.delete(f"callboard:run:{mine}")
        script.append(lambda ctx: ctx.result(bobs))
        script.append(lambda ctx: ctx.result(mine))
        script.append(lambda ctx: ctx.result("nobody"))
        script.append(_started_and_not_waited_for)
        run("parentAsync")
        bob, past, nobody, late = answers
        assert "this run's caller" in bob.error
        assert past == ok()
        assert nobody == fail("No run 'nobody'", "not_found")
        assert "after 0.05 s" in late.error

    @pytest.mark.parametrize("timeout", ["1", True, float("nan")])
    def test_what_is_no_time_is_a_failure(self, run, timeout: Any) -> None:
        script.append(lambda ctx: ctx.result(str(uuid4()), timeout=timeout))
        run("parentAsync")
        assert answers[0].code == "bad_request"
        assert "timeout: seconds" in answers[0].error

    @pytest.mark.parametrize("run_id", [None, 7, "", "\ud800", b"x", "x" * 10_000])
    def test_what_is_no_runs_id_is_no_run(self, run, run_id: Any) -> None:
        script.append(lambda ctx: ctx.result(run_id))
        script.append(lambda ctx: ctx.signal(run_id, "go"))
        run("parentAsync")
        result, signaled = (answer.code for answer in answers)
        assert result == "not_found"
        assert signaled in ("not_found", "invalid_data")  # of what is no text at all

    def test_a_run_does_not_wait_for_itself(self, run) -> None:
        script.append(lambda ctx: ctx.result(ctx.run_id))
        run("parentAsync")
        assert answers == [fail("ctx.result: a run cannot wait for its own end", "bad_request")]

    def test_what_cannot_be_sent_fails_by_itself(
        self, services: Services, loop_thread: LoopThread, redis_url: str
    ) -> None:
        async def ask() -> list[Any]:
            client = redis.asyncio.Redis.from_url(redis_url)
            runs = AsyncRuns(client, services.sealer, services.keys)
            asked = [runs.present([run_id]) for run_id in ("a", "\ud800", "b")]
            try:
                return await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 30)
            finally:
                await client.aclose()

        before, bad, after = loop_thread.run(ask())
        assert (before, after) == (set(), set())
        assert isinstance(bad, UnicodeEncodeError)


async def _started_and_not_waited_for(ctx: AsyncActionContext) -> ActionResult:
    run_id = (await ctx.start("child", {"n": 1})).unwrap()["runId"]
    return await ctx.result(run_id, timeout=0.05)


def services_cancel(runs: Runs, run_id: str) -> None:
    from callboard.runs.outcome import Outcome

    runs.cancel(run_id, "child", Outcome.canceled(run_id))


def _none(ctx: Any) -> Any:
    """Nothing, as a step of either kind of handler."""
    return asyncio.sleep(0) if isinstance(ctx, AsyncActionContext) else None


def _count(ctx: Any, client: redis.Redis) -> Any:
    """How many runs there are, as a step of either kind of handler."""

    async def count() -> int:
        return counted()

    def counted() -> int:
        return len([*client.scan_iter("callboard:run:*")])

    return count() if isinstance(ctx, AsyncActionContext) else counted()


class TestWaitingRuns:
    """What a caller does with a run that waits, wherever it does."""

    @pytest.fixture
    def waiting(self, services: Services) -> WaitingRuns:
        return WaitingRuns(services.runs, services.store.database, REGISTRY.actions)

    @pytest.fixture
    def start_in_a_full_queue(self, run, redis_client: redis.Redis) -> Callable[[], str]:
        def start() -> str:
            script.append(lambda _: redis_client.lpush("callboard", *range(10_000)))
            script.append(lambda ctx: ctx.start("child", {"n": 1}))
            run("parent")
            return answers[1].unwrap()["runId"]

        return start

    def test_canceling_what_waits_for_a_group_cancels_what_has_not_started(
        self, run, runs: Runs, waiting: WaitingRuns, services: Services
    ) -> None:
        calls = [("child", {"n": n}) for n in range(4)]
        script.append(lambda ctx: ctx.start_all(calls, then=("after", {})))
        run("parent")
        started = answers[0].unwrap()
        execute(services, child, started["runIds"][0], tuple)
        runs.claim(started["runIds"][1], "child", "w:1", 5)
        waiting.cancel(read(runs, started["thenRunId"]))
        assert [read(runs, run_id).status for run_id in started["runIds"]] == [
            *("succeeded", "running", "canceled", "canceled"),
        ]
        assert not runs._redis.hexists(f"callboard:run:{started['runIds'][1]}", "cancel")
        assert read(runs, started["thenRunId"]).status == "canceled"

    def test_one_in_the_outbox_alone_is_found_and_canceled(
        self, runs: Runs, waiting: WaitingRuns, start_in_a_full_queue, publisher: Publisher,
        redis_client: redis.Redis, database: Database[Any],
    ) -> None:  # fmt: skip
        run_id = start_in_a_full_queue()
        assert waiting.find("nobody") is None
        found = waiting.find(run_id)
        assert found is not None
        assert (found.status, found.action, found.caller) == ("waiting", "child", "alice")
        waiting.cancel(found)
        assert read(runs, run_id).status == "canceled"
        assert ids(database) == []
        redis_client.delete("callboard")
        publisher.turn()
        assert redis_client.llen("callboard") == 0

    def test_another_time_survives_the_loss_of_redis_too(
        self, run, runs: Runs, waiting: WaitingRuns, redis_client, publisher: Publisher
    ) -> None:
        script.append(lambda ctx: ctx.start("child", {"n": 1}, delay=60))
        run("parent")
        run_id = answers[0].unwrap()["runId"]
        due = datetime.now(UTC) + timedelta(days=2)
        assert waiting.reschedule(read(runs, run_id), due)
        redis_client.flushdb()
        publisher.turn()
        record = read(runs, run_id)
        assert record.due is not None
        assert record.call is not None
        assert abs(record.due / 1000 - due.timestamp()) < 60
        assert abs(record.call.expires - CALL_LIFETIME - due.timestamp()) < 60
        assert record.call.jwt is None
        with pytest.raises(BadRequest, match="366 days"):
            waiting.reschedule(record, datetime.now(UTC) + timedelta(days=400))
        assert waiting.reschedule(record, datetime.now(UTC) - timedelta(days=1))
        runs.release(500, 10_000)
        assert read(runs, run_id).status == "queued"
        assert not waiting.reschedule(read(runs, run_id), due)
