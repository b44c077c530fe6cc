"""One body for plain and for async callers: I/O as steps of a generator.

What reads or writes is written once, as a generator that yields what an I/O call has returned::

    def find(self, record_id: str) -> Steps[Document | None]:
        return (yield self.collection.find_one({"_id": record_id}))

Called with PyMongo's plain collection, what is yielded is the document: `run` hands it back. Called
with the async one, it is an awaitable: `arun` awaits it, and raises in the generator what that
raises. So only the objects differ that do the I/O, never what is done with the answers.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from functools import wraps
from inspect import GEN_CLOSED, getgeneratorstate, isawaitable
from typing import Any, ParamSpec, TypeAlias, TypeVar

__all__ = ["Steps", "arun", "awaited", "plain", "run"]

P = ParamSpec("P")
T = TypeVar("T")

Steps: TypeAlias = Generator[Any, Any, T]


def run(steps: Steps[T]) -> T:
    """Go through the steps, each of which is its own answer."""
    try:
        answer = next(steps)
        while True:
            answer = steps.send(answer)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    except BaseException as error:
        if getgeneratorstate(steps) == GEN_CLOSED:  # the body has raised it
            raise
        return run(_interrupted(steps, error))


def _interrupted(steps: Steps[T], error: BaseException) -> Steps[T]:
    """A signal handler has raised between two steps: the body must know, to leave all in order."""
    step = steps.throw(error)
    while True:
        step = steps.send((yield step))


async def arun(steps: Steps[T]) -> T:
    """Go through the steps, and await each that can be awaited."""
    try:
        step = next(steps)
        while True:
            if not isawaitable(step):
                step = steps.send(step)
                continue
            try:
                answer = await step
            except BaseException as error:  # noqa: BLE001 - the generator's to judge
                step = steps.throw(error)
            else:
                step = steps.send(answer)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    finally:
        steps.close()


def plain(method: Callable[P, Steps[T]]) -> Callable[P, T]:
    """The function for plain callers."""

    @wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return run(method(*args, **kwargs))

    return call


def awaited(method: Callable[P, Steps[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """The function for async callers."""

    @wraps(method)
    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return await arun(method(*args, **kwargs))

    return call
