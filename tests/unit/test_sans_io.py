"""The two drivers of generators that do I/O."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from callboard.sans_io import Steps, arun, awaited, plain, run


async def answers(value: object) -> object:
    await asyncio.sleep(0)
    return value


async def fails() -> None:
    await asyncio.sleep(0)
    raise LookupError("away")


def both(first: object, second: object) -> Steps[tuple[object, object]]:
    one = yield first
    two = yield second
    return one, two


def tolerant(step: object, left: list[str]) -> Steps[str]:
    try:
        yield step
    except LookupError as error:
        return f"caught {error}"
    finally:
        left.append("the end")
    return "nothing caught"


def test_a_plain_step_is_its_own_answer() -> None:
    assert run(both(1, None)) == (1, None)
    assert plain(both)(2, 3) == (2, 3)


def test_an_awaitable_is_awaited_and_a_value_is_not() -> None:
    assert asyncio.run(arun(both(answers(1), 2))) == (1, 2)
    assert asyncio.run(awaited(both)(answers(None), answers(3))) == (None, 3)


def test_what_an_awaitable_raises_is_raised_in_the_body() -> None:
    left: list[str] = []
    assert asyncio.run(arun(tolerant(fails(), left))) == "caught away"
    assert left == ["the end"]


def test_what_the_body_does_not_catch_leaves_it() -> None:
    with pytest.raises(LookupError, match="away"):
        asyncio.run(arun(both(fails(), 1)))


def test_a_canceled_task_cancels_the_body() -> None:
    left: list[str] = []

    async def canceled() -> None:
        task = asyncio.create_task(arun(tolerant(asyncio.sleep(60), left)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(canceled())
    assert left == ["the end"]


class Interrupted:
    """Steps that a signal handler interrupts when the first has been made."""

    def __init__(self, steps: Steps[object]) -> None:
        self._steps = steps

    def __next__(self) -> object:
        next(self._steps)
        raise KeyboardInterrupt

    def __getattr__(self, name: str) -> Any:
        return getattr(self._steps, name)


def test_what_comes_between_two_steps_is_raised_in_the_body() -> None:
    left: list[object] = []

    def body() -> Steps[None]:
        try:
            yield 1
        finally:
            left.append((yield 2))

    with pytest.raises(KeyboardInterrupt):
        run(cast(Steps[None], Interrupted(body())))
    assert left == [2]
