"""The event loop that async handlers run on in tests, in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from callboard.connections.mongodb import AsyncStore
from callboard.settings import Settings

__all__ = ["HandlerLoop"]

T = TypeVar("T")


class HandlerLoop:
    """One for all calls; it starts with the first handler that needs it."""

    def __init__(self, settings: Settings) -> None:
        self._store = AsyncStore.of(settings)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def run(self, function: Callable[[AsyncStore], Coroutine[Any, Any, T]]) -> T:
        """What the function's coroutine answers; it gets the store of the loop."""
        if self._loop is None:
            self._start()
        assert self._loop is not None  # noqa: S101 - just started
        future = asyncio.run_coroutine_threadsafe(function(self._store), self._loop)
        try:
            return future.result()
        except BaseException:  # Ctrl-C as well
            future.cancel()
            raise

    def close(self) -> None:
        """End the loop and its connections, if it ever began."""
        if self._loop is None or self._thread is None:
            return
        self.run(AsyncStore.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._loop = None

    def _start(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._run_loop, args=(self._loop,), name="async handlers", daemon=True
        )
        self._thread.start()

    def _run_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        stopped = False
        while not stopped:
            with contextlib.suppress(SystemExit, KeyboardInterrupt):  # of a task of a handler's
                loop.run_forever()
                stopped = True
