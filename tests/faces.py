"""The two kinds of tools and contexts, for tests with one body: what is async looks plain to it."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, contextmanager
from contextvars import Context, copy_context
from typing import Any

from pymongo import MongoClient
from pymongo.database import Database

from callboard.connections.mongodb import AsyncStore
from callboard.testing.servers import with_database
from worker.runs.outbound import AsyncOutbound, Outbound
from worker.tools.tools import AsyncTools, Tools
from worker.tools.transaction import (
    Transaction,
    kill_sessions,
    kill_sessions_async,
    run_in_transaction,
    run_in_transaction_async,
)

__all__ = ["AsyncFace", "LoopThread", "PlainFace"]


class PlainFace:
    """What plain handlers get."""

    kind = "plain"

    def database(self, database: Database[dict[str, Any]]) -> Any:
        return database

    def tools(self, **options: Any) -> Any:
        return Tools(**options)

    def outbound(self, *given: Any) -> Any:
        return Outbound(*given)

    def run_in_transaction(self, **options: Any) -> Any:
        return run_in_transaction(**options)

    def kill_sessions(self, database: Any, ids: Any) -> None:
        kill_sessions(database, ids)


class LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.loop.set_default_executor(ThreadPoolExecutor(32))
        self._thread = threading.Thread(target=self.loop.run_forever, name="loop", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, Any], context: Context | None = None) -> Any:
        """Its result, from another thread."""

        async def within() -> tuple[Any, BaseException | None]:
            return await self.loop.create_task(_caught(coroutine), context=context)

        answer, error = asyncio.run_coroutine_threadsafe(within(), self.loop).result()
        if error is not None:
            raise error
        return answer

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


async def _caught(coroutine: Coroutine[Any, Any, Any]) -> tuple[Any, BaseException | None]:
    """What it answers, or raises: some exceptions of a task would end the loop."""
    try:
        return await coroutine, None
    except BaseException as error:  # noqa: BLE001 - raised again in the test
        return None, error


class Awaited:
    """An object whose coroutines are awaited: all in one context, as those of one task are."""

    def __init__(self, target: Any, thread: LoopThread) -> None:
        self._target = target
        self._loop_thread = thread
        self._context = copy_context()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if not callable(found):
            return found
        return lambda *args, **options: self._answer(found(*args, **options))

    def _answer(self, answer: Any) -> Any:
        if inspect.iscoroutine(answer):
            return self._loop_thread.run(answer, self._context)
        if isinstance(answer, AbstractAsyncContextManager):
            return self._block(answer)
        return answer

    @contextmanager
    def _block(self, block: Any) -> Iterator[Any]:
        entered = self._answer(block.__aenter__())
        try:
            yield entered
        except BaseException as error:
            if not self._answer(block.__aexit__(type(error), error, error.__traceback__)):
                raise
        else:
            self._answer(block.__aexit__(None, None, None))


class AsyncFace:
    """What async handlers get; their loop is in a thread of its own."""

    kind = "async"

    def __init__(self, thread: LoopThread, uri: str) -> None:
        """``uri``: of the server that databases are of, unless ``uris`` knows better."""
        self.thread = thread
        self.uris: dict[MongoClient[dict[str, Any]], str] = {}
        self._uri = uri
        self._stores: dict[str, AsyncStore] = {}

    def close(self) -> None:
        for store in self._stores.values():
            self.thread.run(store.close())

    def database(self, database: Database[dict[str, Any]]) -> Any:
        """The same one, on the loop."""
        uri = with_database(self.uris.get(database.client, self._uri), database.name)
        if uri not in self._stores:
            self._stores[uri] = AsyncStore(uri)
        return self._stores[uri].database()

    def tools(self, **options: Any) -> Any:
        return Awaited(AsyncTools(**self._asynchronous(options)), self.thread)

    def outbound(self, *given: Any) -> Any:
        return Awaited(AsyncOutbound(*given), self.thread)

    def run_in_transaction(self, *, body: Callable[[Transaction], Any], **options: Any) -> Any:
        async def awaited(transaction: Transaction) -> Any:
            return await asyncio.to_thread(body, transaction)

        given = self._asynchronous(options)
        return self.thread.run(run_in_transaction_async(body=awaited, **given))

    def kill_sessions(self, database: Any, ids: Any) -> None:
        self.thread.run(kill_sessions_async(self.database(database), ids))

    def _asynchronous(self, options: dict[str, Any]) -> dict[str, Any]:
        """The options, whose functions are plain ones of the test, as they are awaited."""
        wanted = {"integration", "on_session", "on_end", "before_start"} & options.keys()
        changed = {name: _awaitable(options[name]) for name in wanted}
        if "database" in options:
            database = options["database"]
            changed["database"] = lambda: self.database(database())
        return {**options, **changed}


def _awaitable(function: Callable[..., Any]) -> Callable[..., Any]:
    async def call(*args: Any) -> Any:
        return function(*args)

    return call
