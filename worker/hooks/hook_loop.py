"""The hook loop: the event loop of a process of plain handlers, for hooks that are async.

It turns only while such a hook has something to do: a plain handler runs in no loop, and may have
one of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from functools import cached_property, partial
from typing import Any, TypeVar

__all__ = ["HookLoop"]

END_SECONDS = 1.0  # that a hook which is to end gets

T = TypeVar("T")
Calls = list[tuple[Any, "asyncio.Future[Any]"]]


class HookLoop:
    """One for a process; the loop is made when it is first needed."""

    @cached_property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop; it does not turn."""
        return asyncio.new_event_loop()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """What the coroutine answers."""
        task = self.loop.create_task(coroutine, context=copy_context())
        try:
            return self.loop.run_until_complete(task)
        except BaseException:
            self._end(task)
            raise

    def around(
        self,
        function: Callable[[Any, Any], Coroutine[Any, Any, Any]],
        ctx: Any,
        behind: Callable[[Any], Any],
    ) -> Any:
        """What an async hook answers around a plain handler. ``behind``: called while the loop
        stands still, with the hook's context variables."""
        loop, context, ends = self.loop, copy_context(), False
        calls: Calls = []

        async def call_next(other: Any = None) -> Any:
            if ends:
                raise asyncio.CancelledError
            answer = loop.create_future()
            calls.append((ctx if other is None else other, answer))
            loop.stop()
            return await answer

        task = loop.create_task(function(ctx, call_next), context=context)
        task.add_done_callback(_stop)
        try:
            while not task.done():
                loop.run_forever()
                while calls:
                    given, answer = calls.pop()
                    _answer(answer, partial(context.run, behind, given))
            return task.result()
        except BaseException:
            ends = True
            task.remove_done_callback(_stop)  # what ends the hook waits for it in another way
            self._end(task)
            raise

    def close(self) -> None:
        """End the loop, if it ever was."""
        if "loop" in self.__dict__:
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()
            del self.loop

    def _end(self, task: asyncio.Task[Any]) -> None:
        """End what a signal or an exit has left in the middle."""
        if not task.done():
            task.cancel()
            self.loop.run_until_complete(asyncio.wait([task], timeout=END_SECONDS))
        if task.done() and not task.cancelled():
            task.exception()  # somebody has seen it: asyncio need not tell


def _stop(task: asyncio.Task[Any]) -> None:
    task.get_loop().stop()


def _answer(answer: asyncio.Future[Any], call: Callable[[], Any]) -> None:
    """Hand the hook what comes of what is behind it."""
    try:
        result = call()
    except StopIteration as error:
        answer.set_exception(RuntimeError(f"the handler raised {error!r}"))
    except BaseException as error:  # noqa: BLE001 - a stop of the handler as well
        answer.set_exception(error)
    else:
        answer.set_result(result)
