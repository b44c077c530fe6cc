"""The tools: what a handler reads and writes records with.

There are two kinds, of one body (`worker.tools.steps`): calls of `Tools` answer, calls of
`AsyncTools` are awaited.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from callboard.sans_io import Steps, arun, awaited, plain, run

from .steps import Answer, ToolSteps
from .transaction import ASYNC, PLAIN, Transaction

__all__ = ["AsyncTools", "Tools"]

P = ParamSpec("P")
R = TypeVar("R")


class Tools(ToolSteps):
    """The `callboard.sdk.context.ActionTools` of one attempt of a run."""

    kind = PLAIN

    create = plain(ToolSteps._create)
    update = plain(ToolSteps._update)
    remove = plain(ToolSteps._remove)
    get = plain(ToolSteps._get)
    query = plain(ToolSteps._query)
    delete_where = plain(ToolSteps._delete_where)
    register_user = plain(ToolSteps._register_user)
    integration = plain(ToolSteps._integration)
    join = plain(ToolSteps._join)
    do = plain(ToolSteps._do)

    def end(self) -> None:
        """The attempt is over."""
        self.ended = True
        self._on_end()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        transaction = run(self._begin())
        try:
            yield
        except BaseException as error:
            run(self._finish(transaction, error))
            raise
        run(self._finish(transaction, None))


Method = Callable[Concatenate["AsyncTools", P], Steps[Answer[R]]]
AsyncMethod = Callable[Concatenate["AsyncTools", P], Coroutine[Any, Any, Answer[R]]]


def _serialized(method: Method[P, R]) -> AsyncMethod[P, R]:
    """`awaited`; within a transaction one after the other, whatever task calls."""

    @wraps(method)
    async def call(self: AsyncTools, /, *args: P.args, **kwargs: P.kwargs) -> Answer[R]:
        transaction = self._transaction
        if transaction is None or transaction.lock is None:
            return await arun(method(self, *args, **kwargs))
        async with transaction.lock:
            return await arun(method(self, *args, **kwargs))

    return call


class AsyncTools(ToolSteps):
    """The `callboard.sdk.context.AsyncActionTools` of one attempt of a run.

    A transaction is that of the task that opened it, and of the tasks that it starts within.
    """

    kind = ASYNC

    create = _serialized(ToolSteps._create)
    update = _serialized(ToolSteps._update)
    remove = _serialized(ToolSteps._remove)
    get = _serialized(ToolSteps._get)
    query = _serialized(ToolSteps._query)
    delete_where = _serialized(ToolSteps._delete_where)
    register_user = _serialized(ToolSteps._register_user)
    integration = awaited(ToolSteps._integration)
    join = awaited(ToolSteps._join)
    do = _serialized(ToolSteps._do)

    async def end(self) -> None:
        """The attempt is over."""
        self.ended = True
        await self._on_end()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        transaction = await arun(self._begin())
        try:
            yield
        except BaseException as error:
            await arun(self._finish(transaction, error))
            raise
        await arun(self._finish(transaction, None))

    @property
    def _transaction(self) -> Transaction | None:
        tools, transaction = _scope.get()
        return transaction if tools is self else None

    @_transaction.setter
    def _transaction(self, transaction: Transaction | None) -> None:
        _scope.set((self, transaction))


_scope: ContextVar[tuple[AsyncTools | None, Transaction | None]] = ContextVar(
    "transaction", default=(None, None)
)
