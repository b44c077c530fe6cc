"""``/api/runs/<id>/detail``: each attempt, why it failed and what it logged, for the owner."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
import redis
import redis.asyncio
import structlog
from faces import LoopThread
from flask.testing import FlaskClient

from callboard import ActionContext, ActionResult, AsyncActionContext, Retry, action, fail, ok
from callboard.cli.detail import detail_lines
from callboard.connections.keys import Keys
from callboard.connections.mongodb import AsyncStore, Store
from callboard.log.printed import Printed
from callboard.log.run_lines import RunLogHandler, keep
from callboard.registry import Registry
from callboard.runs.seal import Call
from callboard.settings import Settings
from worker.archive.archiver import Archiver
from worker.loop.execution import Executor
from worker.loop.running import Running
from worker.loop.runs import AsyncRuns
from worker.runs.execution import execute
from worker.services import Services

TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJlLW9mLXRva2Vu"

todo: list[Callable[[Any], Any]] = []  # what the handlers below do: the first that is there


@action("work")
def work(ctx: ActionContext) -> ActionResult:
    return todo[0](ctx)


@action("again", retry=Retry(on=(ValueError,), max_attempts=3, backoff=0.001))
def again(ctx: ActionContext) -> ActionResult:
    return todo[0](ctx)


@action("workAsync")
async def work_async(ctx: AsyncActionContext) -> ActionResult:
    return await todo[0](ctx)


ACTIONS = {each.name: each for each in (work, again, work_async)}


@pytest.fixture
def services(variables: dict[str, str], mongodb_uri: str) -> Iterator[Services]:
    services = Services(Settings(**variables), Registry(actions=ACTIONS))
    services.store = Store(mongodb_uri)
    yield services
    services.runs.close()
    services.store.close()


@pytest.fixture
def logs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The log as a worker sets it up."""
    handler = RunLogHandler()
    before = logging.root.level
    logging.root.addHandler(handler)
    logging.root.setLevel(logging.INFO)
    processors = structlog.get_config()["processors"]
    processors.insert(0, keep)
    yield
    processors.remove(keep)
    logging.root.removeHandler(handler)
    logging.root.setLevel(before)


@pytest.fixture
def run(
    services: Services, loop_thread: LoopThread, redis_url: str, mongodb_uri: str
) -> Iterator[Callable[..., str]]:
    """Runs a handler until its run has ended: ``run(do, "work")``; its id."""
    opened: list[Any] = []

    async def on_loop(run_id: str, name: str) -> None:
        client = redis.asyncio.Redis.from_url(redis_url)
        store = AsyncStore(mongodb_uri)
        opened.append((client, store))
        executor = Executor(services, AsyncRuns(client, services.sealer, services.keys), store)
        await executor.execute(Running(run_id, ACTIONS[name], 1))

    def run(do: Callable[[Any], Any], name: str = "work", **call: Any) -> str:
        todo[:] = [do]
        run_id, made = str(uuid4()), Call(caller="alice", jwt=TOKEN, **call)
        found = ACTIONS[name]
        services.runs.accept(run_id, found, made, max_queue=99, result_ttl=60)
        while (record := services.runs.read(run_id)) and record.ended is None:
            if found.is_async:
                loop_thread.run(on_loop(run_id, name))
            else:
                execute(services, found, run_id, tuple)
        return run_id

    async def close() -> None:
        for client, store in opened:
            await client.aclose()
            await store.close()

    yield run
    loop_thread.run(close())


@pytest.fixture
def get(api: Callable[..., FlaskClient], make_token: Callable[..., str]) -> Callable[..., Any]:
    """The detail of a run, as somebody: ``get(run_id, "owner")``; None: without a token."""
    client = api()

    def get(run_id: str, sub: str | None = "owner", status: int = 200) -> Any:
        headers = {"Authorization": f"Bearer {make_token(sub)}"} if sub else {}
        response = client.get(f"/api/runs/{run_id}/detail", headers=headers)
        assert response.status_code == status, response.get_json()
        return response.get_json().get("data")

    return get


def texts(detail: dict[str, Any]) -> list[str]:
    return [line["text"] for line in detail["log"]]


class TestWho:
    def test_the_owner_alone(self, run: Any, get: Any) -> None:
        run_id = run(lambda ctx: ok())
        assert get(run_id)["runId"] == run_id
        get(run_id, "alice", 403)
        get(run_id, None, 401)
        get(str(uuid4()), "owner", 404)
        get(str(uuid4()), "alice", 403)

    def test_what_is_told_there_is_told_to_no_caller(
        self, run: Any, api: Any, make_token: Any, redis_client: redis.Redis, logs: None
    ) -> None:
        def do(ctx: ActionContext) -> ActionResult:
            ctx.log.info("canary-line")
            raise ValueError("canary-error")

        run_id = run(do)
        headers = {"Authorization": f"Bearer {make_token('alice')}"}
        for path in (f"/api/runs/{run_id}", "/api/runs", f"/api/runs/{run_id}/events"):
            assert "canary" not in api().get(path, headers=headers).text
        record = redis_client.hgetall(f"callboard:run:{run_id}")
        assert record[b"report:1"]
        assert b"canary" not in b"".join(record.values())


class TestAttempts:
    def test_a_run_that_succeeds_at_once_has_one(self, run: Any, get: Any) -> None:
        seen = get(run(lambda ctx: ok(ctx.params["n"]), params={"n": 1}))
        [attempt] = seen["attempts"]
        assert attempt["status"] == "succeeded"
        assert attempt["startedAt"] == seen["startedAt"]
        assert attempt["completedAt"] == seen["completedAt"]
        assert attempt["worker"]
        assert attempt["error"] is attempt["traceback"] is None
        assert seen["params"] == {"n": 1}
        assert (seen["parent"], seen["steps"], seen["log"]) == (None, [], [])
        assert seen["children"] == {"runs": [], "after": None}

    def test_each_that_failed_says_why_and_when(self, run: Any, get: Any, logs: None) -> None:
        def do(ctx: ActionContext) -> ActionResult:
            ctx.log.info(f"try {ctx.attempt}")
            if ctx.attempt < 3:
                raise ValueError(f"no {ctx.attempt}")
            return ok()

        seen = get(run(do, "again"))
        assert [one["status"] for one in seen["attempts"]] == ["failed", "failed", "succeeded"]
        assert [one["error"] for one in seen["attempts"]] == [
            "ValueError: no 1", "ValueError: no 2", None,
        ]  # fmt: skip
        assert "test_detail.py" in seen["attempts"][0]["traceback"]
        assert [(line["attempt"], line["text"]) for line in seen["log"]] == [
            (1, "try 1"), (2, "try 2"), (3, "try 3"),
        ]  # fmt: skip
        times = [one[name] for one in seen["attempts"] for name in ("startedAt", "completedAt")]
        assert times == sorted(times)

    def test_one_whose_worker_died_is_there(
        self, services: Services, get: Any, run: Any, redis_client: redis.Redis
    ) -> None:
        run_id = str(uuid4())
        services.runs.accept(run_id, work, Call(caller="alice"), max_queue=9, result_ttl=60)
        services.runs.claim(run_id, "work", "box.1f:7:1", 60)
        services.runs.lose(run_id, "box.1f:7:1")
        services.runs.claim(run_id, "work", "box.1f:8:1", 60)
        redis_client.hset(f"callboard:run:{run_id}", "lease", 1)  # as time would
        todo[:] = [lambda ctx: ok()]
        execute(services, work, run_id, tuple)
        attempts = get(run_id)["attempts"]
        assert [one["status"] for one in attempts] == ["lost", "lost", "succeeded"]
        assert [one["worker"] for one in attempts][:2] == ["box:7", "box:8"]

    def test_the_last_ones_are_kept(self, services: Services, get: Any) -> None:
        run_id = str(uuid4())
        services.runs.accept(run_id, work, Call(caller="alice"), max_queue=9, result_ttl=60)
        for number in range(30):
            services.runs.claim(run_id, "work", f"box.1f:7:{number}", 60)
            services.runs.requeue(run_id, f"box.1f:7:{number}")
        seen = get(run_id)
        assert [one["attempt"] for one in seen["attempts"]] == list(range(11, 31))
        assert {one["status"] for one in seen["attempts"]} == {"requeued"}

    def test_it_is_the_same_from_the_history(
        self, run: Any, get: Any, archiver: Archiver, redis_client: redis.Redis, logs: None
    ) -> None:
        def do(ctx: ActionContext) -> ActionResult:
            ctx.log.warning("about to fail", n=ctx.attempt)
            raise ValueError(ctx.attempt)

        run_id = run(do, "again", params={"n": 1})
        before = get(run_id)
        assert len(before["attempts"]) == len(before["log"]) == 3
        archiver._history._keep_params = True
        archiver.turn()
        assert get(run_id) == before  # its record is still there, without its params
        redis_client.delete(f"callboard:run:{run_id}")
        assert get(run_id) == before

    def test_a_run_without_anything_to_tell_keeps_nothing_more(
        self, run: Any, redis_client: redis.Redis, logs: None
    ) -> None:
        run_id = run(lambda ctx: fail("as the handler says"))
        names = {name.decode() for name in redis_client.hkeys(f"callboard:run:{run_id}")}
        assert not {name for name in names if ":" in name} | names & {"exception", "attempted"}


class TestWhy:
    @pytest.mark.parametrize(
        ("result", "told"),
        [
            (lambda: None, "returned nothing"),
            (lambda: {"a": 1}, "returned a dict"),
            (lambda: ok({"a": [1, object()]}), "a.1"),
            (lambda: ok("x" * 1_100_000), "at most 1,048,576"),
        ],
    )
    def test_what_was_returned_in_vain_is_named(
        self, run: Any, get: Any, result: Any, told: str
    ) -> None:
        seen = get(run(lambda ctx: result()))
        assert told in seen["attempts"][0]["error"]
        assert seen["attempts"][0]["traceback"] is None

    def test_a_traceback_begins_at_the_handler_and_has_its_causes(self, run: Any, get: Any) -> None:
        def do(ctx: ActionContext) -> ActionResult:
            try:
                raise KeyError("first")
            except KeyError as error:
                raise RuntimeError("second") from error

        [attempt] = get(run(do))["attempts"]
        assert attempt["error"] == "RuntimeError: second"
        assert "KeyError: 'first'" in attempt["traceback"]
        assert "sans_io" not in attempt["traceback"]

    def test_an_exception_without_a_text_or_with_a_huge_one(self, run: Any, get: Any) -> None:
        class Hostile(Exception):
            def __str__(self) -> str:
                raise RuntimeError

        def hostile(ctx: ActionContext) -> ActionResult:
            raise Hostile

        def huge(ctx: ActionContext) -> ActionResult:
            raise ValueError("x" * 3_000_000 + "\ud800")

        [attempt] = get(run(hostile))["attempts"]
        assert "Hostile" in attempt["error"]
        [attempt] = get(run(huge))["attempts"]
        assert len(attempt["error"]) < 1000
        assert len(attempt["traceback"]) < 20_000

    def test_an_async_handler_that_timed_out_shows_where(self, run: Any, get: Any) -> None:
        async def do(ctx: AsyncActionContext) -> ActionResult:
            await asyncio.sleep(3600)
            return ok()

        object.__setattr__(work_async, "timeout", 0.2)
        try:
            [attempt] = get(run(do, "workAsync"))["attempts"]
        finally:
            object.__setattr__(work_async, "timeout", 30.0)
        assert attempt["error"] == "Timed out after 0.2 s"
        assert "asyncio.sleep(3600)" in attempt["traceback"]


class TestSecrets:
    def test_no_token_and_no_secret_is_in_it(
        self, run: Any, get: Any, services: Services, logs: None, redis_url: str
    ) -> None:
        secret = services.settings.secret_keys[0]

        def do(ctx: ActionContext) -> ActionResult:
            ctx.log.info("the token", token=ctx.caller_jwt, key=secret)
            logging.getLogger("app").warning("of another: %s", TOKEN.replace("c2ln", "d2ln"))
            ctx.log.info("x" * 8_170 + (ctx.caller_jwt or ""))  # cut within the token
            raise ValueError(f"Bearer {ctx.caller_jwt} for {services.settings.redis_url} {secret}")

        text = json.dumps(get(run(do)))
        assert "[redacted]" in text
        for canary in ("eyJ", "c2ln", "d2ln", secret):
            assert canary not in text


class TestLines:
    def test_all_that_a_plain_handler_says_in_its_order(
        self, run: Any, get: Any, logs: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = Printed(_NoFile(), "stdout")

        def do(ctx: ActionContext) -> ActionResult:
            ctx.log.info("one", n=1, name="two words")
            print("two", file=out)
            logging.getLogger("app.orders").info("three %d", 3)
            structlog.get_logger("other").warning("four")
            try:
                raise KeyError("five")
            except KeyError:
                logging.exception("caught")
            print("six", end="", file=out)
            out.flush()
            return ok()

        log = get(run(do))["log"]
        assert [(line["level"], line["source"]) for line in log] == [
            ("info", "log"), ("info", "stdout"), ("info", "app.orders"), ("warning", "log"),
            ("error", "root"), ("info", "stdout"),
        ]  # fmt: skip
        assert [line["text"].splitlines()[0] for line in log] == [
            'one n=1 name="two words"', "two", "three 3", "four", "caught", "six",
        ]  # fmt: skip
        assert "KeyError: 'five'" in log[4]["text"]

    def test_what_does_not_fit_its_text_or_has_none_is_kept_somehow(
        self, run: Any, get: Any, logs: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Mute:
            def __repr__(self) -> str:
                raise RuntimeError

        logger = logging.getLogger("app.alone")
        monkeypatch.setattr(logger, "propagate", False)  # pytest's own handler raises
        monkeypatch.setattr(logger, "handlers", [RunLogHandler()])

        def do(ctx: ActionContext) -> ActionResult:
            logger.warning("%d", "no number")
            ctx.log.info("a value", value=Mute())
            ctx.log.info("half \ud800")
            return ok()

        assert len(get(run(do))["log"]) == 3

    def test_the_last_lines_are_kept(self, run: Any, get: Any, logs: None) -> None:
        def many(ctx: ActionContext) -> ActionResult:
            for number in range(1000):
                ctx.log.info(f"line {number}")
            return ok()

        def long(ctx: ActionContext) -> ActionResult:
            for _ in range(100):
                ctx.log.info("ü" * 100_000)
            return ok()

        seen = get(run(many))
        assert texts(seen) == [f"line {number}" for number in range(800, 1000)]
        assert seen["attempts"][0]["linesDropped"] == 800
        seen = get(run(long))
        assert 0 < sum(len(text.encode()) for text in texts(seen)) <= 65_536

    def test_a_thread_of_the_handler_logs_for_its_run_and_for_no_later_one(
        self, run: Any, get: Any, logs: None, eventually: Callable[..., None]
    ) -> None:
        go, gone = threading.Event(), threading.Event()

        def outlive() -> None:
            logging.getLogger("app").info("in the first run")
            first.set()
            go.wait(60)
            logging.getLogger("app").info("of the first run, in the second")
            gone.set()

        first = threading.Event()

        def start(ctx: ActionContext) -> ActionResult:
            threading.Thread(target=outlive).start()
            assert first.wait(60)
            return ok()

        def other(ctx: ActionContext) -> ActionResult:
            go.set()
            assert gone.wait(60)
            thread = threading.Thread(target=ctx.log.info, args=("its own",))
            thread.start()
            thread.join()
            return ok()

        assert texts(get(run(start))) == ["in the first run"]
        assert texts(get(run(other))) == ["its own"]

    def test_tasks_and_threads_of_async_runs_side_by_side(
        self, services: Services, run: Any, get: Any, logs: None, loop_thread: LoopThread,
        redis_url: str, mongodb_uri: str,
    ) -> None:  # fmt: skip
        out = Printed(_NoFile(), "stdout")
        arrived: list[int] = []

        async def do(ctx: AsyncActionContext) -> ActionResult:
            n = ctx.params["n"]
            print(f"begun {n}", end=" ", file=out)
            arrived.append(n)
            while len(arrived) < 3:
                await asyncio.sleep(0.01)
            print("and ended", n, file=out)
            await asyncio.gather(*[part(n, k) for k in range(2)])
            await asyncio.to_thread(logging.getLogger("app").info, f"{n} thread")
            return ok()

        async def part(n: int, k: int) -> None:
            await asyncio.sleep(0)
            structlog.get_logger().info(f"{n} task {k}")

        todo[:] = [do]
        ids = [str(uuid4()) for _ in range(3)]
        for n, run_id in enumerate(ids):
            call = Call(caller="alice", params={"n": n})
            services.runs.accept(run_id, work_async, call, max_queue=9, result_ttl=60)

        async def all_at_once() -> None:
            client, store = redis.asyncio.Redis.from_url(redis_url), AsyncStore(mongodb_uri)
            runs = AsyncRuns(client, services.sealer, services.keys)
            executor = Executor(services, runs, store)
            running = [Running(run_id, work_async, n) for n, run_id in enumerate(ids)]
            await asyncio.gather(*map(executor.execute, running))
            await client.aclose()
            await store.close()

        loop_thread.run(all_at_once())
        for n, run_id in enumerate(ids):
            assert texts(get(run_id)) == [
                f"begun {n} and ended {n}", f"{n} task 0", f"{n} task 1", f"{n} thread",
            ]  # fmt: skip

    def test_lines_of_no_run_are_kept_nowhere(self, run: Any, get: Any, logs: None) -> None:
        structlog.get_logger().info("before")
        run_id = run(lambda ctx: ok())
        logging.getLogger().warning("after")
        assert get(run_id)["log"] == []


class _NoFile:
    """Where `Printed` would write."""

    def write(self, text: str) -> int:
        return len(text)


def test_steps_are_shown_without_their_values(
    services: Services, get: Any, archiver: Archiver, redis_client: redis.Redis
) -> None:
    run_id = str(uuid4())
    services.runs.accept(run_id, work, Call(caller="alice"), max_queue=9, result_ttl=60)
    services.runs.claim(run_id, "work", "box.1f:7:1", 60)
    for number, name in enumerate(["charge", "mail"], 1):
        times = 1_700_000_000_000, 1_700_000_001_000
        text = json.dumps(["step", name, {"canary": 1}, *times]).encode()
        sealed = services.sealer.seal("step", run_id, "work", text)
        redis_client.hset(f"callboard:run:{run_id}", f"step:{number}", sealed)
    todo[:] = [lambda ctx: ok()]
    redis_client.hset(f"callboard:run:{run_id}", "lease", 1)
    execute(services, work, run_id, tuple)
    seen = get(run_id)
    assert [step["name"] for step in seen["steps"]] == ["charge", "mail"]
    assert seen["steps"][0]["completedAt"] == "2023-11-14T22:13:21.000Z"
    assert "canary" not in json.dumps(seen)
    archiver.turn()
    redis_client.delete(f"callboard:run:{run_id}")
    assert get(run_id)["steps"] == seen["steps"]


def test_a_report_that_was_altered_costs_itself_alone(
    run: Any, get: Any, redis_client: redis.Redis
) -> None:
    def do(ctx: ActionContext) -> ActionResult:
        raise ValueError

    run_id = run(do, "again")
    key = f"callboard:run:{run_id}"
    redis_client.hset(key, "report:1", redis_client.hget(key, "report:2"))  # another's
    redis_client.hset(key, "attempt:2", b"\xff")
    seen = get(run_id)
    assert [one["error"] for one in seen["attempts"]] == [None, "ValueError"]


class TestErrors:
    @pytest.fixture
    def errors(self, api: Any, make_token: Any) -> Callable[..., Any]:
        client = api()

        def errors(sub: str | None = "owner", **query: Any) -> Any:
            headers = {"Authorization": f"Bearer {make_token(sub)}"} if sub else {}
            return client.get("/api/runs/errors", headers=headers, query_string=query)

        return errors

    def test_runs_that_failed_alike_are_one_row(
        self, run: Any, errors: Any, archiver: Archiver
    ) -> None:
        def raising(ctx: ActionContext) -> ActionResult:
            raise ValueError(ctx.params["n"])

        run(raising, params={"n": 1})
        run(lambda ctx: ok())
        archiver.turn()  # one of them is in the history, the others are live
        last = run(raising, params={"n": 2})
        refused = run(lambda ctx: fail("sold out"))
        response = errors()
        assert response.status_code == 200
        data = response.get_json()["data"]
        assert data["complete"] is True
        rows = [(r["action"], r["exception"], r["count"], r["runId"]) for r in data["errors"]]
        assert rows == [("work", "ValueError", 2, last), ("work", None, 1, refused)]
        assert [row["error"] for row in data["errors"]] == ["Action failed", "sold out"]
        assert data["errors"][0]["first"] < data["errors"][0]["last"]
        assert errors(action="other").get_json()["data"]["errors"] == []

    def test_those_of_before_are_not_there(
        self, run: Any, errors: Any, redis_client: redis.Redis
    ) -> None:
        old = run(lambda ctx: fail("long ago"))
        hour_ago = int(time.time() * 1000) - 3_600_001
        redis_client.hset(f"callboard:run:{old}", "enqueued", hour_ago)
        redis_client.zadd(Keys().live, {old: hour_ago})
        assert errors(hours=1).get_json()["data"]["errors"] == []
        assert len(errors(hours=2).get_json()["data"]["errors"]) == 1

    def test_they_are_the_owners_alone_and_bad_values_are_400(self, errors: Any) -> None:
        assert errors("alice").status_code == 403
        assert errors(None).status_code == 401
        for query in ({"hours": "0"}, {"hours": "721"}, {"hours": "x"}, {"action": "a b"}):
            assert errors(**query).status_code == 400

    def test_how_many_are_looked_at_is_bounded(
        self, run: Any, errors: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("callboard.runs.failures.LOOKED_AT", 2)
        for _ in range(3):
            run(lambda ctx: fail("no"))
        data = errors().get_json()["data"]
        assert (data["complete"], data["errors"][0]["count"]) == (False, 2)


class TestCommands:
    """What `callboard runs show` makes of it."""

    def test_all_of_it_is_shown_and_nothing_steers_the_terminal(
        self, run: Any, get: Any, logs: None
    ) -> None:
        def do(ctx: ActionContext) -> ActionResult:
            ctx.log.info("a \x1b[31mred\x1b[0m line\nand another", n=1)
            raise ValueError("\x1b[2J")

        detail = get(run(do, params={"n": 1}))
        shown = "\n".join(detail_lines(detail, None))
        assert "\x1b" not in shown
        for part in (
            '{"n": 1}',
            "Traceback of attempt 1",
            "ValueError: ?[2J",
            "?[31mred",
            "and another",
        ):
            assert part in shown
        plain = "\n".join(detail_lines(get(run(lambda ctx: ok())), 80))
        assert "Log" not in plain
