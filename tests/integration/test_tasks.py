"""Several tasks of one async handler: each call is whole, a transaction is its task's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from faces import AsyncFace, LoopThread
from pymongo.database import Database

from callboard import fail, ok
from callboard.errors import DatabaseUnavailable
from worker.tools.tools import AsyncTools
from worker.tools.transaction import MARKERS, run_in_transaction_async

DOCUMENTS = dict[str, Any]
ENDED = "The transaction that this task began in has ended"


@pytest.fixture
def face(loop_thread: LoopThread, server_mongodb_uri: str) -> Iterator[AsyncFace]:
    face = AsyncFace(loop_thread, server_mongodb_uri)
    yield face
    face.close()


@pytest.fixture
def make(face: AsyncFace, database: Database[DOCUMENTS]) -> Callable[..., AsyncTools]:
    def make(**options: Any) -> AsyncTools:
        given = {
            "database": lambda: face.database(database),
            "run_id": uuid4().hex,
            "user_id": "alice",
            "integration": echo,
            "on_session": none,
            "on_end": none,
            "deadline": time.monotonic() + 30,
            **options,
        }
        return AsyncTools(**given)

    return make


async def none(*_: Any) -> None: ...


async def echo(*_: Any) -> Any:
    return ok()


def test_ids_are_those_of_the_calls_in_their_order(
    make: Callable[..., AsyncTools], loop_thread: LoopThread, database: Database[DOCUMENTS]
) -> None:
    """So a rerun finds what it has made, whichever call the database answers first."""

    async def handler(tools: AsyncTools) -> list[str]:
        made = await asyncio.gather(*(tools.create("items", {"n": n}) for n in range(50)))
        return [one.unwrap()["recordId"] for one in made]

    first = loop_thread.run(handler(make(run_id="r")))
    assert loop_thread.run(handler(make(run_id="r"))) == first
    rows = {row["_id"]: row["data"]["n"] for row in database["items"].find()}
    assert [rows[record_id] for record_id in first] == list(range(50))


def test_the_deadline_is_each_calls_own(
    make: Callable[..., AsyncTools], loop_thread: LoopThread
) -> None:
    tools, late = make(deadline=time.monotonic() + 60), make(deadline=time.monotonic() - 1)

    async def handler() -> list[Any]:
        calls = [which.get("items", "x") for _ in range(20) for which in (tools, late)]
        return await asyncio.gather(*calls, return_exceptions=True)

    answers = loop_thread.run(handler())
    assert answers[::2] == [fail("Record not found", "not_found")] * 20
    assert {type(answer) for answer in answers[1::2]} == {DatabaseUnavailable}


class TestTransactions:
    def test_calls_of_several_tasks_take_turns_in_it(
        self, make: Callable[..., AsyncTools], loop_thread: LoopThread,
        database: Database[DOCUMENTS],
    ) -> None:  # fmt: skip
        """A session of PyMongo's does one thing at a time."""

        async def handler(tools: AsyncTools) -> None:
            async with tools.transaction(), asyncio.TaskGroup() as group:
                for n in range(20):
                    group.create_task(tools.create("items", {"n": n}))
            async with tools.transaction():
                found = await asyncio.gather(*(tools.query("items", {"n": n}) for n in range(20)))
                assert [one.unwrap()["count"] for one in found] == [1] * 20
                await asyncio.gather(*(tools.create("more", {"n": n}) for n in range(20)))
                raise LookupError

        with pytest.raises(LookupError):
            loop_thread.run(handler(make()))
        assert database["items"].count_documents({}) == 20
        assert database["more"].count_documents({}) == 0

    def test_it_is_not_that_of_a_task_beside_it(
        self, make: Callable[..., AsyncTools], loop_thread: LoopThread,
        database: Database[DOCUMENTS],
    ) -> None:  # fmt: skip
        """What another task writes meanwhile is not rolled back with it."""
        opened, written = asyncio.Event(), asyncio.Event()

        async def within(tools: AsyncTools) -> None:
            async with tools.transaction():
                (await tools.create("items", {}, "within")).unwrap()
                opened.set()
                await written.wait()
                raise LookupError

        async def beside(tools: AsyncTools) -> None:
            await opened.wait()
            assert not tools.in_transaction
            (await tools.create("items", {}, "beside")).unwrap()
            written.set()

        async def handler(tools: AsyncTools) -> list[Any]:
            (await tools.create("items", {}, "before")).unwrap()  # there is the collection
            both = (within(tools), beside(tools))
            return await asyncio.gather(*both, return_exceptions=True)

        error, done = loop_thread.run(handler(make()))
        assert isinstance(error, LookupError)
        assert done is None
        assert [row["_id"] for row in database["items"].find()] == ["before", "beside"]

    def test_two_tasks_have_one_each(
        self, make: Callable[..., AsyncTools], loop_thread: LoopThread,
        database: Database[DOCUMENTS],
    ) -> None:  # fmt: skip
        async def part(tools: AsyncTools, name: str, fails: bool) -> None:
            async with tools.transaction():
                (await tools.create("items", {}, name)).unwrap()
                await asyncio.sleep(0)
                if fails:
                    raise LookupError

        async def handler(tools: AsyncTools) -> None:
            (await tools.create("items", {}, "0")).unwrap()
            parts = (part(tools, f"{n}", fails=n % 2 == 1) for n in range(6))
            await asyncio.gather(*parts, return_exceptions=True)

        loop_thread.run(handler(make()))
        assert [row["_id"] for row in database["items"].find().sort("_id", 1)] == ["0", "2", "4"]

    def test_a_task_that_outlives_it_writes_nothing_more(
        self, make: Callable[..., AsyncTools], loop_thread: LoopThread,
        database: Database[DOCUMENTS],
    ) -> None:  # fmt: skip
        closed = asyncio.Event()

        async def late(tools: AsyncTools) -> Any:
            await closed.wait()
            return await tools.create("items", {}, "late")

        async def handler(tools: AsyncTools) -> Any:
            async with tools.transaction():
                task = asyncio.create_task(late(tools))
                (await tools.create("items", {}, "in time")).unwrap()
            closed.set()
            return await task

        assert loop_thread.run(handler(make())).error.startswith(ENDED)
        assert [row["_id"] for row in database["items"].find()] == ["in time"]

    def test_a_call_under_way_is_over_before_it_commits(
        self, face: AsyncFace, make: Callable[..., AsyncTools], loop_thread: LoopThread,
        database: Database[DOCUMENTS],
    ) -> None:  # fmt: skip
        """The handler has forgotten to await its tasks: what they began counts, and no more."""
        tasks: list[asyncio.Task[Any]] = []

        async def body(transaction: Any) -> Any:
            tools = make(run_id="r", transaction=transaction)
            tasks.extend(
                asyncio.create_task(tools.create("items", {"n": n}, f"{n}")) for n in range(10)
            )
            await asyncio.sleep(0)
            return ok()

        async def run() -> tuple[Any, list[Any]]:
            result = await run_in_transaction_async(
                database=lambda: face.database(database), run_id="r", action="a",
                deadline=time.monotonic() + 30, before_start=none, body=body,
            )  # fmt: skip
            return result, [await task for task in tasks]

        result, answers = loop_thread.run(run())
        assert result.success
        made = [one.data["recordId"] for one in answers if one.success]
        assert {one.error.startswith(ENDED) for one in answers if not one.success} <= {True}
        assert sorted(row["_id"] for row in database["items"].find()) == sorted(made)
        assert database[MARKERS].count_documents({}) == 1

    def test_a_canceled_handler_leaves_nothing(
        self, make: Callable[..., AsyncTools], loop_thread: LoopThread,
        database: Database[DOCUMENTS],
    ) -> None:  # fmt: skip
        """Nor anything that the next writer would wait for."""

        async def part(tools: AsyncTools, begun: asyncio.Event) -> None:
            async with tools.transaction():
                (await tools.create("items", {}, "x")).unwrap()
                begun.set()
                await asyncio.sleep(60)

        async def handler() -> Any:
            begun = asyncio.Event()
            task = asyncio.create_task(part(make(), begun))
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return await make(deadline=time.monotonic() + 5).create("items", {"n": 2}, "x")

        assert loop_thread.run(handler()).success
        assert [row["data"] for row in database["items"].find()] == [{"n": 2}]


def test_after_the_end_nothing_can_be_done(
    make: Callable[..., AsyncTools], loop_thread: LoopThread
) -> None:
    tools = make()

    async def handler() -> Any:
        await tools.end()
        return await tools.create("items", {})

    assert "a run that has ended" in loop_thread.run(handler()).error
