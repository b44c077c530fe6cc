"""The process hook: begun in each process that runs handlers, ended with it.

One that raises is begun again after a pause, which grows, as long as the process is to live; the
worker's main process is told (`worker.hooks.reports`).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from traceback import extract_tb
from typing import Any

import structlog

from callboard.processes.threads import FIRST_PAUSE, LONGEST_PAUSE
from callboard.sdk.hooks import Hook, Hooks

from .hook_loop import HookLoop
from .reports import Reports

__all__ = ["InlineResources", "PlainResources", "held", "held_in_loop"]

LOOK_SECONDS = 0.05  # whether the worker ends meanwhile

Run = Callable[[Coroutine[Any, Any, Any]], Any]

_log = structlog.get_logger("callboard.worker")


class PlainResources:
    """In a child of the worker, which runs plain handlers. ``ends``: whether the worker does."""

    def __init__(
        self,
        hooks: Hooks,
        hook_loop: Callable[[], HookLoop],
        reports: Reports,
        ends: Callable[[], bool],
    ) -> None:
        self._hook = hooks.process_of(is_async=False)
        self._hook_loop = hook_loop
        self._reports = reports
        self._ends = ends
        self._stack = ExitStack()

    def open(self) -> object:
        """Begin the hook: the state, once there is one; None as well when the worker ends."""
        hook, state = self._hook, None
        if hook is None:
            return None
        for pause in _tries(self._reports, hook, self._ends):
            try:
                state = self._stack.enter_context(held(hook, self._run))
                break
            except (Exception, SystemExit) as error:  # noqa: BLE001 - an application's own code
                _report_failure(self._reports, hook, error, pause)
            until = time.monotonic() + pause
            while time.monotonic() < until and not self._ends():
                time.sleep(LOOK_SECONDS)
        self._reports.ready()
        return state

    def close(self) -> None:
        """End the hook, at the end of the process."""
        try:
            self._stack.close()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - an application's own code
            _log_end(error)

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self._hook_loop().run(coroutine)


@asynccontextmanager
async def held_in_loop(
    hooks: Hooks, reports: Reports, ends: Callable[[], bool]
) -> AsyncIterator[object]:
    """In a loop process: the state, for all that is done within. ``ends``: the process is to."""
    hook, state, stack = hooks.process_of(is_async=True), None, AsyncExitStack()
    if hook is None:
        yield None
        return
    for pause in _tries(reports, hook, ends):
        try:
            state = await _enter(stack, hook)
            break
        except (Exception, SystemExit) as error:  # noqa: BLE001 - an application's own code
            _report_failure(reports, hook, error, pause)
        until = time.monotonic() + pause
        while time.monotonic() < until and not ends():
            await asyncio.sleep(LOOK_SECONDS)
    reports.ready()
    try:
        yield state
    finally:
        try:
            await stack.aclose()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - an application's own code
            _log_end(error)


async def _enter(stack: AsyncExitStack, hook: Hook) -> object:
    if hook.is_async:
        return await stack.enter_async_context(asynccontextmanager(hook.function)())
    return stack.enter_context(contextmanager(hook.function)())


@contextmanager
def held(hook: Hook, run: Run) -> Iterator[object]:
    """The hook's state, in plain code; ``run``: answers what a coroutine does, on a loop."""
    if not hook.is_async:
        with contextmanager(hook.function)() as state:
            yield state
        return
    holding = _Holding(hook)
    state = run(holding.begin())
    try:
        yield state
    finally:
        run(holding.end())


class _Holding:
    """An async generator, in one task from its begin to its end."""

    def __init__(self, hook: Hook) -> None:
        self._hook = hook

    async def begin(self) -> object:
        self._closing = asyncio.Event()
        opened: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._hold(opened))
        both: list[asyncio.Future[Any]] = [self._task, opened]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            self._task.result()
        return await opened

    async def end(self) -> None:
        self._closing.set()
        await self._task

    async def _hold(self, opened: asyncio.Future[object]) -> None:
        async with asynccontextmanager(self._hook.function)() as state:
            opened.set_result(state)
            await self._closing.wait()


class InlineResources:
    """In a process that tests handlers: as in a child for plain ones, as in a loop for async ones.

    ``run``: on the loop of the async ones.
    """

    def __init__(self, run: Run) -> None:
        self.hook_loop = HookLoop()
        self._run = run
        self._states: dict[tuple[Hook, bool], object] = {}
        self._stack = ExitStack()

    def state_of(self, hooks: Hooks, is_async: bool) -> object:
        """``ctx.state`` of handlers of this kind; their hook begins when it is first asked for."""
        hook = hooks.process_of(is_async)
        if hook is None:
            return None
        key = (hook, hook.is_async and is_async)
        if key not in self._states:
            run = self._run if is_async else self.hook_loop.run
            self._states[key] = self._stack.enter_context(held(hook, run))
        return self._states[key]

    def close(self) -> None:
        """End those that have begun."""
        try:
            self._stack.close()
        finally:
            self.hook_loop.close()


def _tries(reports: Reports, hook: Hook, ends: Callable[[], bool]) -> Iterator[float]:
    """The pause behind each try, should it fail, in seconds; none any more when it ends."""
    reports.begins(hook)
    pause = FIRST_PAUSE
    while not ends():
        yield pause
        pause = min(pause * 2, LONGEST_PAUSE)


def _report_failure(reports: Reports, hook: Hook, error: BaseException, pause: float) -> None:
    _log.error("a process hook raised", hook=hook.name, again_in=pause, exc_info=error)
    ours = (__file__, contextlib.__file__)
    frames = [frame for frame in extract_tb(error.__traceback__) if frame.filename not in ours]
    place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else hook.where
    reports.failed(f"{place}: @hooks.process {hook.name!r} raised {_text(error)}")


def _log_end(error: BaseException) -> None:
    _log.error("a process hook raised at its end", exc_info=error)


def _text(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - a hostile __str__
        return type(error).__name__
