"""Steps, sleeps and signals: what a handler has done is done, whenever its worker dies."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import redis
from faces import LoopThread
from killed_runs import KEYS, Workers
from structlog.testing import capture_logs

from callboard import (
    ActionContext,
    ActionResult,
    AsyncActionContext,
    Limit,
    Retry,
    action,
    fail,
    ok,
)
from callboard.connections.mongodb import Store
from callboard.errors import BrokerUnavailable
from callboard.log.run_log import RunLog
from callboard.registry import Registry
from callboard.runs.commands import Claim
from callboard.runs.kept import MAX_STEPS, steps_of_record
from callboard.runs.outcome import Outcome
from callboard.runs.seal import CALL_LIFETIME, Call
from callboard.runs.store import Runs
from callboard.settings import Settings
from worker.archive.archiver import Archiver
from worker.loop.runs import AsyncRuns
from worker.runs.attempt import Attempt
from worker.runs.fire import take_fire
from worker.services import Services

DAY = 86_400

Op = tuple[Any, ...]
program: list[Op] = []  # what the handlers below do, in order
ledger: list[tuple[str, str]] = []  # what steps have done outside: a name, and a key
seen: list[list[Any]] = []  # by each start of a handler
world: list[Workers] = []


def effect(run_id: str, name: str, key: str) -> str:
    world[0].point("before effect", run_id)
    ledger.append((name, key))
    world[0].point("after effect", run_id)
    return uuid4().hex  # another one each time


async def effect_async(run_id: str, name: str, key: str) -> str:
    await asyncio.sleep(0)
    return effect(run_id, name, key)


def given(op: Op, ctx: Any) -> tuple[Any, ...]:
    kind, name, *rest = op
    if kind == "step":
        does = effect_async if isinstance(ctx, AsyncActionContext) else effect
        return ctx.step, (name, does, ctx.run_id, name, ctx.step_key(name))
    return (ctx.sleep if kind == "sleep" else ctx.wait_for_signal), (name, *rest)


def follow(ctx: ActionContext) -> ActionResult:
    seen.append([])
    for op in program:
        call, args = given(op, ctx)
        seen[-1].append(call(*args))
    return ok(list(seen[-1]))


@action
def plain(ctx: ActionContext) -> ActionResult:
    return follow(ctx)


@action(name="async")
async def in_loop(ctx: AsyncActionContext) -> ActionResult:
    seen.append([])
    for op in program:
        call, args = given(op, ctx)
        seen[-1].append(await call(*args))
    return ok(list(seen[-1]))


@action(transaction=True)
def committing(ctx: ActionContext) -> ActionResult:
    return follow(ctx)


@action
def free(ctx: ActionContext) -> ActionResult:
    """Does what the test has put there."""
    return bodies[0](ctx)


@action(name="freeAsync")
async def free_async(ctx: AsyncActionContext) -> ActionResult:
    return await bodies[0](ctx)


@action(timeout=300, on_worker_lost="fail")
def once(ctx: ActionContext) -> ActionResult:
    return bodies[0](ctx)


@action(limit=Limit(concurrency=1))
def limited(ctx: ActionContext) -> ActionResult:
    return follow(ctx)


bodies: list[Any] = []
ALL = (plain, in_loop, committing, free, free_async, once, limited)
REGISTRY = Registry(actions={each.name: each for each in ALL})
BOTH = pytest.mark.parametrize("name", ["plain", "async"])


@pytest.fixture
def services(variables: dict[str, str], mongodb_uri: str) -> Iterator[Services]:
    services = Services(Settings(**variables), REGISTRY)  # type: ignore[arg-type]
    services.store = Store(mongodb_uri)
    services.park_after = 0.5
    yield services
    services.runs.close()
    services.store.close()


@pytest.fixture
def workers(
    services: Services, redis_client: redis.Redis, loop_thread: LoopThread, mongodb_uri: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Workers]:  # fmt: skip
    workers = Workers(services, redis_client, loop_thread, mongodb_uri)
    workers.install(monkeypatch)
    for each in (program, ledger, seen, world, bodies):
        each.clear()
    world.append(workers)
    with capture_logs():  # tracebacks of all that die take long to print
        yield workers
    workers.close()


def steps(workers: Workers, run_id: str) -> list[str]:
    values = workers.client.hgetall(KEYS.run(run_id))
    kept = steps_of_record(workers.services.sealer, run_id, values)
    return [f"{one.kind} {one.name}" for one in kept]


class TestSteps:
    @BOTH
    def test_a_step_is_done_once_and_its_value_stays(self, workers: Workers, name: str) -> None:
        program.extend([("step", "reserve"), ("step", "charge"), ("sleep", "night", 60)])
        run_id = workers.start(name)
        values = workers.result(run_id)
        assert [done for done, _ in ledger] == ["reserve", "charge"]
        assert [values, values[:2]] == [seen[1], seen[0]]
        assert workers.read(run_id).attempt == 1
        assert steps(workers, run_id) == ["step reserve", "step charge", "sleep night"]

    @BOTH
    def test_every_kill_point(self, workers: Workers, name: str) -> None:
        """Killed between its effect and the keeping a step is done again, else never."""
        program.extend([("step", "a"), ("sleep", "s", 60), ("step", "b"), ("wait", "go", 60)])
        for kill_at in range(1, 100):
            workers.kill_at, workers.points = kill_at, []
            ledger.clear()
            seen.clear()
            run_id = workers.start(name)
            values = workers.result(run_id, ["go"])
            died_at = workers.points[kill_at - 1] if workers.kill_at <= 0 else None
            assert values[1:4:2] == [None, ["go"]]
            counts, keys = Counter(done for done, _ in ledger), {key for _, key in ledger}
            assert set(counts) == {"a", "b"}
            assert len(keys) == 2  # however often, under one key
            again = sum(counts.values()) - 2
            if died_at is None:
                assert again == 0
                break
            assert again <= (died_at in ("after effect", "before keep"))
            for start in seen:
                assert start == values[: len(start)]  # what a start has seen stays so
        else:
            pytest.fail("it always died")
        assert kill_at > 10

    @BOTH
    def test_what_a_step_raises_is_not_kept(self, workers: Workers, name: str) -> None:
        tries: list[int] = []

        def fails(ctx: Any) -> Any:
            tries.append(1)
            if len(tries) < 3:
                raise OSError("away")
            return {"tries": len(tries)}

        retry = Retry(max_attempts=3, backoff=0.001)

        async def body_async(ctx: AsyncActionContext) -> ActionResult:
            return ok(await ctx.step("s", fails, ctx, retry=retry))

        is_async = name == "async"
        bodies.append(
            body_async if is_async else lambda ctx: ok(ctx.step("s", fails, ctx, retry=retry))
        )
        run_id = workers.start("freeAsync" if is_async else "free")
        assert workers.result(run_id) == {"tries": 3}
        tries.clear()
        bodies[0] = lambda ctx: ok(ctx.step("s", fails, ctx))
        failed = workers.start("free")
        assert workers.finish(failed).status == "failed"
        assert steps(workers, failed) == []

    @pytest.mark.parametrize(
        ("value", "told"),
        [
            (object(), "a object is not JSON"),
            (float("nan"), "nan is not JSON"),
            ("x" * 2**20, "at most 1,048,576 fit"),
            (ok(1), "step 's' returned an ActionResult"),
        ],
        ids=["object", "nan", "large", "result"],
    )
    def test_what_cannot_be_kept_is_named(self, workers: Workers, value: Any, told: str) -> None:
        bodies.append(lambda ctx: ok(ctx.step("s", lambda: value)))
        assert told in error_of(workers)

    def test_an_async_function_of_a_plain_handler_is_named(self, workers: Workers) -> None:
        bodies.append(lambda ctx: ok(ctx.step("s", effect_async, ctx.run_id, "s", "k")))
        assert "step 's': its function is async" in error_of(workers)

    @pytest.mark.parametrize(
        ("body", "told"),
        [
            (lambda ctx: [ctx.step("s", int), ctx.step("s", int)], "step 's' for the second time"),
            (lambda ctx: [ctx.sleep("s", 0), ctx.sleep("s", 0)], "sleep 's' for the second time"),
            (
                lambda ctx: [ctx.wait_for_signal("s", 0), ctx.wait_for_signal("s", 0)],
                "signal 's' for the second time",
            ),
            (lambda ctx: ctx.step("", int), "Invalid step ''"),
            (lambda ctx: ctx.step("a\nb", int), "Invalid step"),
            (lambda ctx: ctx.step("a" * 201, int), "Invalid step"),
            (lambda ctx: ctx.step(7, int), "Invalid step (int)"),
            (lambda ctx: ctx.step("s", {"a": 1}), "step 's': a function that is to be called"),
            (lambda ctx: ctx.step("s", effect_async("", "", "")), "step 's': a coroutine"),
            (lambda ctx: ctx.step("s", int, retry=3), "step 's': retry is a Retry("),
            (lambda ctx: ctx.wait_for_signal("a b"), "Invalid signal"),
            (lambda ctx: ctx.sleep("s"), "either seconds or until"),
            (lambda ctx: ctx.sleep("s", 1, until=datetime.now(UTC)), "either seconds or until"),
            (lambda ctx: ctx.sleep("s", "1"), "seconds, not str"),
            (lambda ctx: ctx.sleep("s", -1), "0 seconds to 366 days"),
            (lambda ctx: ctx.sleep("s", 367 * DAY), "0 seconds to 366 days"),
            (lambda ctx: ctx.sleep("s", until=datetime(2026, 1, 1)), "timezone"),  # noqa: DTZ001
            (lambda ctx: ctx.sleep("s", until=datetime(9999, 1, 1, tzinfo=UTC)), "366 days"),
            (lambda ctx: ctx.wait_for_signal("s", float("nan")), "0 seconds to 366 days"),
            (lambda ctx: ctx.step("s", lambda: ctx.sleep("t", 1)), "step 's' sleeps ('t')"),
            (lambda ctx: ctx.step("s", lambda: ctx.wait_for_signal("t")), "step 's' waits ('t')"),
        ],
    )
    def test_what_is_wrong_is_named(self, workers: Workers, body: Any, told: str) -> None:
        bodies.append(body)
        assert told in error_of(workers)

    @pytest.mark.parametrize(
        "op", [("step", "s"), ("sleep", "s", 60), ("wait", "s")], ids=lambda op: str(op[0])
    )
    def test_a_transaction_refuses_all_of_it(self, workers: Workers, op: Op) -> None:
        program.append(op)
        assert "Action 'committing': " in error_of(workers, "committing")

        def in_part(ctx: ActionContext) -> ActionResult:
            with ctx.tools.transaction():
                return follow(ctx)

        bodies.append(in_part)
        assert "inside a transaction" in error_of(workers)
        assert ledger == []

    def test_a_run_keeps_so_many_and_so_much(self, workers: Workers) -> None:
        def many(ctx: ActionContext) -> ActionResult:
            for number in range(MAX_STEPS + 1):
                ctx.step(f"s{number}", int)
            return ok()

        def much(ctx: ActionContext) -> ActionResult:
            for number in range(17):
                ctx.step(f"s{number}", lambda: "x" * (2**20 - 2))
            return ok()

        for body in (many, much):
            bodies[:] = [body]
            assert "keeps at most 1,000 steps, of 16 MiB" in error_of(workers)

    def test_what_steps_create_and_start_is_theirs(self, workers: Workers, database: Any) -> None:
        """A step that is kept is not called again; what follows it must not take its ids."""

        def body(ctx: ActionContext) -> ActionResult:
            first = ctx.step("s", lambda: ctx.tools.create("x", {"by": "step"}).unwrap())
            second = ctx.tools.create("x", {"by": "handler"}).unwrap()
            child = ctx.step("t", lambda: ctx.start("plain", delay=60).unwrap())
            other = ctx.start("plain", delay=60).unwrap()
            ctx.sleep("night", 60)
            return ok([first, second, child, other])

        bodies.append(body)
        made = workers.result(workers.start("free"))
        assert len({str(one) for one in made}) == 4
        assert {row["_id"]: row["data"]["by"] for row in database.x.find()} == {
            made[0]["recordId"]: "step", made[1]["recordId"]: "handler",
        }  # fmt: skip

    def test_several_at_once(self, workers: Workers) -> None:
        """In a group of tasks; one that waits lets the others' steps come to their end."""

        async def slow(name: str) -> str:
            await asyncio.sleep(0.05)
            ledger.append((name, ""))
            return name

        async def body(ctx: AsyncActionContext) -> ActionResult:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(ctx.step(name, slow, name)) for name in "abc"]
                group.create_task(ctx.sleep("night", 60))
            return ok([task.result() for task in tasks])

        bodies.append(body)
        run_id = workers.start("freeAsync")
        workers.turn(run_id)
        assert workers.read(run_id).status == "waiting"
        assert workers.result(run_id) == ["a", "b", "c"]
        assert sorted(ledger) == [("a", ""), ("b", ""), ("c", "")]


@BOTH
def test_a_broker_that_is_away_is_no_failure_to_make_up_for(
    workers: Workers, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Whatever the handler catches: the run is started again."""
    away = [BrokerUnavailable("away")]

    def unless_away(answer: Any) -> Any:
        if away:
            raise away.pop()
        return answer

    async def now_async(runs: AsyncRuns) -> int:
        return int(unless_away(workers.services.runs.now()))

    def body(ctx: ActionContext) -> ActionResult:
        with contextlib.suppress(Exception):
            ctx.sleep("past", until=datetime(2020, 1, 1, tzinfo=UTC))
            return ok()
        return fail("made up for")

    async def body_async(ctx: AsyncActionContext) -> ActionResult:
        with contextlib.suppress(Exception):
            await ctx.sleep("past", until=datetime(2020, 1, 1, tzinfo=UTC))
            return ok()
        return fail("made up for")

    now = Runs.now
    monkeypatch.setattr(Runs, "now", lambda runs: unless_away(now(runs)))
    monkeypatch.setattr(AsyncRuns, "now", now_async)
    is_async = name == "async"
    bodies.append(body_async if is_async else body)
    run_id = workers.start("freeAsync" if is_async else "free")
    workers.turn(run_id)
    assert (workers.read(run_id).status, away) == ("queued", [])


class TestTasks:
    """What tasks of one async handler wait for at once."""

    def test_each_goes_on_when_its_own_wait_is_over(self, workers: Workers) -> None:
        """The longest begins first, and holds none of the others up."""
        ends: list[str] = []

        async def branch(ctx: AsyncActionContext, name: str, seconds: float) -> None:
            await ctx.sleep(f"before {name}", seconds)
            await ctx.step(name, ends.append, name)

        async def body(ctx: AsyncActionContext) -> ActionResult:
            waits = {"year": 300 * DAY, "day": DAY, "hour": 3600, "moment": 0.1}
            await asyncio.gather(*(branch(ctx, *wait) for wait in waits.items()))
            return ok()

        bodies.append(body)
        run_id = workers.start("freeAsync")
        for waits_for, done in [
            ("before hour", ["moment"]),
            ("before day", ["moment", "hour"]),
            ("before year", ["moment", "hour", "day"]),
        ]:
            workers.turn(run_id)
            waiting = workers.read(run_id).waiting_for
            assert waiting is not None
            assert (waiting["name"], ends) == (waits_for, done)
            workers.release(run_id)
        workers.finish(run_id)
        assert ends == ["moment", "hour", "day", "year"]

    def test_every_kill_point(self, workers: Workers) -> None:
        """Whichever branch its process dies in: all of them come to one and the same end."""

        async def branch(ctx: AsyncActionContext, name: str, seconds: float) -> list[str]:
            key = ctx.step_key(name)
            first = await ctx.step(name, effect_async, ctx.run_id, name, key)
            if name == "b":
                await ctx.wait_for_signal("go", timeout=seconds)
            else:
                await ctx.sleep(f"after {name}", seconds)
            return [first, await ctx.step(f"{name}2", effect_async, ctx.run_id, f"{name}2", key)]

        async def body(ctx: AsyncActionContext) -> ActionResult:
            async with asyncio.TaskGroup() as group:
                waits = {"a": 0.02, "b": DAY, "c": 3600}
                tasks = [group.create_task(branch(ctx, *wait)) for wait in waits.items()]
            return ok([task.result() for task in tasks])

        bodies.append(body)
        for kill_at in range(1, 100):
            workers.kill_at, workers.points = kill_at, []
            ledger.clear()
            run_id = workers.start("freeAsync")
            values = workers.result(run_id, ["go"])
            counts = Counter(done for done, _ in ledger)
            assert set(counts) == {"a", "a2", "b", "b2", "c", "c2"}
            assert len({text for pair in values for text in pair}) == 6
            if workers.kill_at > 0:
                assert set(counts.values()) == {1}
                return
            assert max(counts.values()) <= 2
        pytest.fail("it always died")

    @pytest.mark.parametrize("when", ["waiting", "running"])
    @pytest.mark.parametrize("sent", ["yes", "no", "later"])
    def test_the_first_signal_goes_on(self, workers: Workers, sent: str, when: str) -> None:
        def send() -> None:
            workers.services.runs.signal(run_id, "freeAsync", sent, sent)

        async def body(ctx: AsyncActionContext) -> ActionResult:
            seen.append([])
            names = {"yes": DAY, "no": 2 * DAY, "later": 3 * DAY}
            waits = {
                asyncio.ensure_future(ctx.wait_for_signal(name, timeout=seconds))
                for name, seconds in names.items()
            }
            if when == "running" and len(seen) == 1:
                send()
            done, rest = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for task in rest:
                task.cancel()
            return ok([task.result() for task in done])

        bodies.append(body)
        run_id = workers.start("freeAsync")
        workers.turn(run_id)
        if when == "waiting":
            waiting = workers.read(run_id).waiting_for
            assert waiting is not None
            assert {"kind": "signal", "name": "yes"}.items() <= waiting.items()
            send()
            assert workers.read(run_id).status == "queued"
            workers.turn(run_id)
        assert workers.read(run_id).status == "succeeded"
        assert workers.result(run_id) == [sent]

    def test_that_they_wait_is_no_mistake_of_theirs(self, workers: Workers) -> None:
        """Nobody asks a task of `asyncio.wait` how it has ended."""
        told: list[dict[str, Any]] = []

        async def body(ctx: AsyncActionContext) -> ActionResult:
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, context: told.append(context))
            tasks = [asyncio.create_task(ctx.sleep(name, DAY)) for name in "ab"]
            await asyncio.wait(tasks)
            return ok()

        bodies.append(body)
        run_id = workers.start("freeAsync")
        workers.turn(run_id)
        gc.collect()
        workers.loop.run(asyncio.sleep(0))
        assert told == []
        workers.loop.run(no_exception_handler())


async def no_exception_handler() -> None:
    asyncio.get_running_loop().set_exception_handler(None)


class TestWaits:
    @BOTH
    def test_a_sleep_of_days(self, workers: Workers, redis_client: redis.Redis, name: str) -> None:
        program.extend([("step", "a"), ("sleep", "three days", 3 * DAY), ("step", "b")])
        run_id = workers.start(name, idempotency=("k", "d"))
        workers.turn(run_id)
        record = workers.read(run_id)
        assert (record.status, record.attempt) == ("waiting", 1)
        assert record.waiting_for == {"kind": "time", "name": "three days", "until": record.due}
        assert record.due is not None
        assert abs(record.due - workers.services.runs.now() - 3 * DAY * 1000) < 60_000
        # no message, no claim, no process; and the token does not lie there for days
        assert redis_client.zcard(KEYS.open) == 0
        fields = redis_client.hgetall(KEYS.run(run_id))
        assert not {b"holder", b"lease"} & fields.keys()
        assert record.call is not None
        assert record.call.jwt is None
        assert abs(record.call.expires - time.time() - 3 * DAY - CALL_LIFETIME) < 60
        assert redis_client.pttl(KEYS.idempotency("k")) > 4 * DAY * 1000 - 60_000
        assert workers.services.runs.sweep() == []
        workers.release(run_id)
        record = workers.read(run_id)
        assert (record.status, record.waiting_for) == ("queued", None)
        assert record.enqueued < fields_number(redis_client, run_id, "woken")
        workers.turn(run_id)
        assert workers.read(run_id).status == "succeeded"
        assert [done for done, _ in ledger] == ["a", "b"]

    @BOTH
    def test_a_year_of_mornings(self, workers: Workers, name: str) -> None:
        program.extend(("sleep", f"day {day}", DAY) for day in range(40))
        assert workers.result(workers.start(name)) == [None] * 40
        assert workers.ahead >= 40 * DAY * 1000 - 60_000

    @BOTH
    def test_until_a_time(self, workers: Workers, name: str) -> None:
        at = datetime.now(UTC) + timedelta(days=2)

        def body(ctx: Any) -> Any:
            ctx.sleep("past", until=datetime(2020, 1, 1, tzinfo=UTC))
            ctx.sleep("then", until=at)
            return ok()

        async def body_async(ctx: Any) -> Any:
            await ctx.sleep("past", until=datetime(2020, 1, 1, tzinfo=UTC))
            await ctx.sleep("then", until=at)
            return ok()

        is_async = name == "async"
        bodies.append(body_async if is_async else body)
        run_id = workers.start("freeAsync" if is_async else "free")
        workers.turn(run_id)
        assert workers.read(run_id).due == round(at.timestamp() * 1000)
        workers.finish(run_id)

    def test_a_short_one_is_gone_through_by_an_async_handler(self, workers: Workers) -> None:
        program.extend([("sleep", "short", 0.05), ("wait", "never", 0.05)])
        run_id = workers.start("async")
        workers.turn(run_id)
        assert workers.read(run_id).status == "succeeded"
        assert len(seen) == 1
        assert seen[0] == [None, None]

    def test_a_signal_ends_a_short_wait(self, workers: Workers) -> None:
        workers.services.park_after = 60.0
        program.append(("wait", "go", 30))
        run_id = workers.start("async")

        async def both() -> None:
            task = asyncio.ensure_future(workers._on_loop(run_id))
            await asyncio.sleep(0)
            workers.services.runs.signal(run_id, "async", "go", 7)
            await task

        workers.loop.run(both())
        assert workers.result(run_id) == [7]

    @BOTH
    @pytest.mark.parametrize("sent", ["before", "meanwhile", "too late"])
    def test_a_signal(self, workers: Workers, name: str, sent: str) -> None:
        program.extend([("wait", "go", 60), ("sleep", "s", 60)])
        runs = workers.services.runs
        run_id = workers.start(name)
        if sent == "before":
            assert runs.signal(run_id, name, "go", {"by": 1}) == "kept"
        workers.turn(run_id)
        waiting = workers.read(run_id).waiting_for
        assert waiting is not None
        assert waiting["name"] == ("s" if sent == "before" else "go")
        if sent == "meanwhile":
            assert runs.signal(run_id, name, "go", {"by": 1}) == "kept"
            assert workers.read(run_id).status == "queued"
        if sent == "too late":
            workers.release(run_id)
            workers.turn(run_id)
        assert runs.signal(run_id, name, "go", {"by": 2}) == "known"
        expected = None if sent == "too late" else {"by": 1}
        assert workers.result(run_id) == [expected, None]
        assert {str(start[:1]) for start in seen if start} <= {str([expected])}

    def test_a_signal_from_another_run(self, workers: Workers) -> None:
        program.append(("wait", "go"))
        waiting = workers.start("plain")
        workers.turn(waiting)

        def body(ctx: ActionContext) -> ActionResult:
            return ok(
                [
                    vars_of(ctx.signal(*args))
                    for args in [
                        (waiting, "go", {"n": 1}), (waiting, "go", 2), ("unknown", "go"),
                        (waiting, "a b"), (waiting, "go", float("nan")), (committing_run, "go"),
                    ]
                ]
            )  # fmt: skip

        committing_run = workers.start("committing")
        bodies.append(body)
        answers = workers.result(workers.start("free"))
        assert answers[:2] == [[True, {"accepted": True}], [True, {"accepted": False}]]
        assert [answer[0] for answer in answers[2:]] == [False] * 4
        assert workers.result(waiting) == [{"n": 1}]

    def test_what_a_handler_makes_of_it_changes_nothing(self, workers: Workers) -> None:
        """Swallowed, the next call says it again; and what is returned is not the result."""

        def body(ctx: ActionContext) -> ActionResult:
            try:
                ctx.sleep("s", 60)
            except BaseException:  # noqa: BLE001
                try:
                    ctx.step("t", int)
                except BaseException as error:  # noqa: BLE001
                    ledger.append(("again", type(error).__name__))
                return fail("swallowed")
            return ok("woken")

        bodies.append(body)
        assert workers.result(workers.start("free")) == "woken"
        assert ledger == [("again", "Parked")]

    def test_the_time_of_a_handler_is_without_what_it_waited_for(
        self, workers: Workers, redis_client: redis.Redis
    ) -> None:
        spent = []

        def body(ctx: ActionContext) -> ActionResult:
            time.sleep(0.05)
            spent.append(workers.services.scoreboard._table.spent(0))
            ctx.sleep("a", 60)
            ctx.sleep("b", 60)
            return ok()

        bodies.append(body)
        workers.services.scoreboard.begin()
        run_id = workers.start("once")
        workers.finish(run_id)
        assert spent[0] == 0.0
        assert 0.05 <= spent[1] < spent[2] < 300
        assert fields_number(redis_client, run_id, "waited") >= 0

    def test_the_archiver_takes_no_steps_along(
        self, workers: Workers, archiver: Archiver, history: Any
    ) -> None:
        bodies.append(lambda ctx: ok(len([ctx.step(f"s{n}", large) for n in range(9)])))
        run_id = workers.start("free")
        workers.finish(run_id)
        [ended] = archiver._ended.take("me", 10, 10)
        assert not [name for name in ended.values if name.startswith(b"step:")]
        archiver._ended.pass_on()
        archiver.turn()
        assert history.find(run_id).status == "succeeded"

    def test_it_holds_no_slot_of_a_limit(self, workers: Workers) -> None:
        program.extend([("step", "a"), ("sleep", "s", 60)])
        for _ in range(2):
            run_id = workers.start("limited")
            workers.turn(run_id)
            assert workers.read(run_id).waiting_for == {
                "kind": "time", "name": "s", "until": workers.read(run_id).due,
            }  # fmt: skip
        assert workers.result(run_id)[1] is None

    def test_canceled_while_it_waits(self, workers: Workers, redis_client: redis.Redis) -> None:
        program.extend([("step", "a"), ("sleep", "s", 60)])
        run_id = workers.start("plain")
        workers.turn(run_id)
        workers.services.runs.cancel(run_id, "plain", Outcome.canceled(run_id))
        assert workers.read(run_id).status == "canceled"
        assert redis_client.zcard(KEYS.due) == 0
        workers.turn(run_id)
        assert len(seen) == 1

    def test_canceled_as_it_begins_to_wait(self, workers: Workers) -> None:
        def body(ctx: ActionContext) -> ActionResult:
            workers.services.runs.cancel(ctx.run_id, "free", Outcome.canceled(ctx.run_id))
            ctx.sleep("s", 60)
            return ok()

        bodies.append(body)
        run_id = workers.start("free")
        workers.turn(run_id)
        assert workers.read(run_id).status == "queued"  # whoever claims it ends it
        workers.turn(run_id)
        assert workers.read(run_id).status == "canceled"

    def test_a_scheduled_run_has_its_fire_for_as_long_as_it_waits(self, services: Services) -> None:
        """Fires are forgotten after a month; a run may wait for longer."""
        call = Call(caller="owner", scheduled=True, acceptance="a")
        log = RunLog(services.redactor, None)
        for waited in (0.0, 1.0):
            claim = Claim(state="claimed", attempt=1, waited=waited)
            attempt = Attempt(str(uuid4()), plain, "w:1", claim, call, time.monotonic() + 9, log)
            assert take_fire(services, attempt) is bool(waited)

    def test_another_code(self, workers: Workers) -> None:
        """Names, not positions, find what is kept; what the new code has no more is ignored."""
        program.extend([("step", "a"), ("step", "old"), ("sleep", "s", 60)])
        run_id = workers.start("plain")
        workers.turn(run_id)
        [first] = seen
        program[:] = [("step", "new"), ("step", "a"), ("sleep", "s", 60)]
        assert workers.result(run_id)[1] == first[0]
        assert [done for done, _ in ledger] == ["a", "old", "new"]

    def test_a_thousand_wait_and_go_on(self, workers: Workers, redis_client: redis.Redis) -> None:
        """Over an end of every worker: nothing of them is anywhere but in their records."""
        program.extend([("step", "a"), ("sleep", "s", 3600)])
        world[0].points = []
        runs = [workers.start("plain") for _ in range(1000)]
        redis_client.delete("callboard")
        for run_id in runs:
            workers.turn(run_id)
        workers.services.runs.close()
        assert redis_client.zcard(KEYS.due) == 1000
        assert redis_client.zcard(KEYS.open) == 0
        assert {workers.read(run_id).status for run_id in runs} == {"waiting"}
        workers.ahead = 3600 * 1000
        redis_client.zadd(KEYS.due, dict.fromkeys(runs, 1))
        assert [workers.services.runs.release(500, 10_000) for _ in range(3)] == [500, 500, 0]
        assert redis_client.llen("callboard") == 1000
        for run_id in runs:
            workers.turn(run_id)
        assert {workers.read(run_id).status for run_id in runs} == {"succeeded"}
        assert len(ledger) == 1000


def large() -> str:
    return "x" * 10**6


def error_of(workers: Workers, name: str = "free") -> str:
    """What the log says about the run that fails."""
    with capture_logs() as logs:
        run_id = workers.start(name)
        workers.turn(run_id)
    assert workers.read(run_id).status == "failed"
    return " ".join(str(line.get("exc_info")) for line in logs)


def vars_of(answer: ActionResult[Any]) -> list[Any]:
    return [answer.success, answer.data]


def fields_number(client: redis.Redis, run_id: str, field: str) -> int:
    return int(client.hget(KEYS.run(run_id), field) or -1)  # type: ignore[arg-type]


def some_program(chance: random.Random) -> list[Op]:
    """Steps, sleeps and waits in any order; no two of a kind and a name."""
    kinds = {"step": [()], "sleep": [(0,), (0.001,), (3,), (90_000,)], "wait": [(0,), (5,), (DAY,)]}
    every = [(kind, name) for kind in kinds for name in "abcd"]
    chosen = chance.sample(every, chance.randint(1, 8))
    return [(kind, name, *chance.choice(kinds[kind])) for kind, name in chosen]


@BOTH
@pytest.mark.parametrize("seed", range(20))
def test_one_and_the_same_result_however_often_it_is_killed(
    workers: Workers, name: str, seed: int
) -> None:
    """Steps answer something else each time that they are called, and signals come or do not."""
    chance = random.Random(seed)
    program.extend(some_program(chance))
    signals = chance.sample("abcd", chance.randint(0, 4))
    kills = [chance.randint(1, 6) for _ in range(chance.randint(0, 8))]
    many = len(kills)

    def arm() -> None:
        if workers.kill_at <= 0 and kills:
            workers.kill_at = kills.pop()

    values = workers.result(workers.start(name), signals, before=arm)
    assert len(values) == len(program)
    for start in seen:
        assert start == values[: len(start)]  # what a start has seen stays so
    for op, value in zip(program, values, strict=True):
        if op[0] == "sleep":
            assert value is None
        if op[0] == "wait":
            assert value in ([op[1]], None)
            assert value is None or op[1] in signals
    done = Counter(each for each, _ in ledger)
    assert set(done) == {op[1] for op in program if op[0] == "step"}
    assert sum(done.values()) - len(done) <= many
