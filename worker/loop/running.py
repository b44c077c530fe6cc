"""What runs in a loop: the task of each handler, and the tasks that it has started."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any, TypeVar
from weakref import WeakSet

import structlog

from callboard.sdk.action import Action

from ..runs.lifecycle import HandedBack, HandlerStopped, TimedOut

__all__ = ["Running", "current", "make_task"]

END_SECONDS = 1.0  # that tasks which a handler left get to end
CLIENTS = "pymongo_"  # how the names of the tasks begin that a client of PyMongo has for itself

T = TypeVar("T")
Why = type[HandlerStopped] | type[TimedOut] | type[HandedBack]

_log = structlog.get_logger("callboard.worker")


class Running:
    """One run in hand."""

    def __init__(self, run_id: str, action: Action[Any], number: int) -> None:
        self.run_id = run_id
        self.action = action
        self.number = number
        self.tasks: WeakSet[asyncio.Task[Any]] = WeakSet()  # all that belong to it
        self._handler: asyncio.Task[Any] | None = None
        self._why: Why | None = None  # it is to stop

    @property
    def why(self) -> Why | None:
        """The reason for which it is to stop; None while it is not."""
        return self._why

    def context(self) -> Context:
        """A context of the run's own: nothing that it sets there is seen outside."""
        context = copy_context()
        context.run(current.set, self)
        return context

    def stop(self, why: Why) -> None:
        """Cancel the handler, now or when it begins; the first reason counts."""
        if self._why is None:
            self._why = why
        if self._handler is not None:
            self._handler.cancel()

    async def handle(self, handler: Coroutine[Any, Any, T]) -> T:
        """What the handler answers; raises why it was stopped, and what it raises."""
        if self._why is not None:
            handler.close()
            raise self._why
        task = asyncio.create_task(handler, context=self.context())
        self._handler = task
        try:
            return await task
        except asyncio.CancelledError as error:
            if self._why is None:
                raise  # it has canceled itself
            why = self._why().with_traceback(error.__traceback__)  # says where it was
            raise why from error.__cause__
        except GeneratorExit as error:
            if not task.done():
                raise  # this coroutine is closed
            raise RuntimeError("the application's code raised GeneratorExit") from error
        finally:
            await self._end_tasks()

    async def _end_tasks(self) -> None:
        """What the handler has started ends with it; not what watches the database for all runs,
        which begins with whichever run needs it first."""
        here = asyncio.current_task()
        left = [
            task for task in self.tasks
            if task is not here and not task.done() and not _is_clients(task)
        ]  # fmt: skip
        if not left:
            return
        for task in left:
            task.cancel()
        _, left_still = await asyncio.wait(left, timeout=END_SECONDS)
        if left_still:
            _log.warning("tasks of a run did not end", tasks=len(left_still))


current: ContextVar[Running | None] = ContextVar("current", default=None)
"""The run that this code belongs to."""


def make_task(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T], **options: Any
) -> asyncio.Task[T]:
    """A loop's task factory: a task knows its run, and the run its tasks.

    What a client of PyMongo starts for itself belongs to no run.
    """
    context: Context | None = options.get("context")
    running = current.get() if context is None else context.get(current)
    if running is not None and _is_clients(asyncio.current_task(loop)):
        options["context"] = copy_context() if context is None else context.copy()
        options["context"].run(current.set, None)
        running = None
    task = asyncio.Task(coroutine, loop=loop, **options)
    if running is not None:
        running.tasks.add(task)
    return task


def _is_clients(task: asyncio.Task[Any] | None) -> bool:
    """Whether a client of PyMongo has it for itself."""
    return task is not None and task.get_name().startswith(CLIENTS)
