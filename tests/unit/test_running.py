"""What runs in a loop: a handler's task, its context, the tasks that it has started."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextvars import ContextVar, copy_context
from typing import Any

import pytest

from callboard import ok
from callboard.errors import DatabaseUnavailable
from callboard.sdk.action import action
from worker.loop.process import HandlerThreads
from worker.loop.running import CLIENTS, Running, current, make_task
from worker.runs.lifecycle import HandedBack, HandlerStopped, TimedOut
from worker.tools.deadline import within

STOPS = [HandlerStopped, TimedOut, HandedBack]


@action
async def work(ctx: Any) -> Any:
    return ok()


@pytest.fixture
def running() -> Running:
    return Running("a run", work, 1)


@pytest.fixture
def in_loop() -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Runs a coroutine in a loop that has our task factory."""

    def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner() as runner:
            runner.get_loop().set_task_factory(make_task)
            return runner.run(coroutine)

    return run


async def forever(begun: asyncio.Event | None = None) -> None:
    if begun:
        begun.set()
    await asyncio.Event().wait()


def test_the_handlers_answer_is_that_of_the_run(running: Running, in_loop: Any) -> None:
    async def handler() -> str:
        assert current.get() is running
        return "done"

    assert in_loop(running.handle(handler())) == "done"


@pytest.mark.parametrize("error", [KeyError, asyncio.CancelledError])
def test_what_it_raises_is_raised(
    running: Running, in_loop: Any, error: type[BaseException]
) -> None:
    async def handler() -> None:
        raise error

    async def run() -> None:
        with pytest.raises(error):
            await running.handle(handler())

    in_loop(run())


@pytest.mark.parametrize("why", STOPS)
def test_one_that_is_stopped_in_a_call_to_the_database_says_so(
    running: Running, in_loop: Any, why: Any
) -> None:
    async def handler(begun: asyncio.Event) -> None:
        with within(time.monotonic() + 60):
            await forever(begun)

    async def run() -> None:
        begun = asyncio.Event()
        handling = asyncio.create_task(running.handle(handler(begun)))
        await begun.wait()
        running.stop(why)
        with pytest.raises(why) as raised:
            await handling
        assert isinstance(raised.value.__cause__, DatabaseUnavailable)

    in_loop(run())


def test_a_generators_exit_of_the_handlers_is_an_error(running: Running, in_loop: Any) -> None:
    async def handler() -> None:
        raise GeneratorExit

    async def run() -> None:
        with pytest.raises(RuntimeError, match="raised GeneratorExit"):
            await running.handle(handler())

    in_loop(run())


@pytest.mark.parametrize("why", STOPS)
def test_it_is_stopped_with_the_reason(running: Running, in_loop: Any, why: Any) -> None:
    async def run() -> None:
        begun = asyncio.Event()
        handled = asyncio.ensure_future(running.handle(forever(begun)))
        await begun.wait()
        running.stop(why)
        running.stop(HandlerStopped)  # the first counts
        with pytest.raises(why):
            await handled

    in_loop(run())


def test_one_that_was_stopped_before_does_not_begin(running: Running, in_loop: Any) -> None:
    async def run() -> None:
        running.stop(HandlerStopped)
        with pytest.raises(HandlerStopped):
            await running.handle(forever())

    in_loop(run())


def test_its_tasks_end_with_it(running: Running, in_loop: Any) -> None:
    left: list[asyncio.Task[None]] = []

    async def nested() -> None:
        left.append(asyncio.create_task(forever()))
        await forever()

    async def handler() -> None:
        left.append(asyncio.create_task(nested()))
        await asyncio.sleep(0)

    async def run() -> None:
        other = asyncio.create_task(forever())  # of nobody
        await running.handle(handler())
        assert len(left) == 2
        assert all(task.cancelled() for task in left)
        assert not other.done()
        other.cancel()

    in_loop(run())


def test_what_a_run_sets_is_seen_by_no_other(running: Running, in_loop: Any) -> None:
    variable: ContextVar[str] = ContextVar("variable", default="nobody's")

    async def handler() -> str:
        before = variable.get()
        variable.set("mine")
        return before

    async def run() -> None:
        for _ in range(2):
            assert await Running("another", work, 2).handle(handler()) == "nobody's"
        assert variable.get() == "nobody's"

    in_loop(run())


def test_what_a_database_client_does_for_itself_is_of_no_run(
    running: Running, in_loop: Any
) -> None:
    """Its tasks begin in whichever run needs it first, and begin others as long as they live."""
    begun, kept, questions = asyncio.Event(), [], []

    async def watch() -> None:
        questions.append(asyncio.create_task(forever(begun)))
        questions.append(asyncio.create_task(forever(), context=copy_context()))
        await questions[0]

    async def handler() -> None:
        kept.append(asyncio.create_task(watch(), name=f"{CLIENTS}monitor"))
        await begun.wait()

    async def run() -> None:
        await running.handle(handler())
        await asyncio.sleep(0)
        assert [question.cancelling() for question in questions] == [0, 0]
        assert not any(task.done() for task in (*kept, *questions))

    in_loop(run())


@pytest.mark.parametrize(
    ("raises", "error"),
    [(lambda: next(iter(())), RuntimeError), (lambda: {}["none"], KeyError)],
)
def test_what_a_thread_raises_is_raised(
    in_loop: Any, raises: Callable[[], object], error: type[Exception]
) -> None:
    async def run() -> None:
        asyncio.get_running_loop().set_default_executor(HandlerThreads(1, "handler"))
        with pytest.raises(error):
            await asyncio.wait_for(asyncio.to_thread(raises), 10.0)

    in_loop(run())
