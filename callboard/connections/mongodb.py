"""The store: an application's database in MongoDB.

Every write is acknowledged by a majority and journaled: without the journal, a database that
is killed loses writes that it had acknowledged.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import pymongo
from pymongo import AsyncMongoClient, MongoClient
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import PyMongoError

from callboard.errors import DatabaseUnavailable
from callboard.settings import Settings

__all__ = [
    "AnyCollection",
    "AnyDatabase",
    "AnySession",
    "AsyncStore",
    "Document",
    "Store",
    "connect",
    "guarded",
]

Document = dict[str, Any]
AnyDatabase: TypeAlias = Database[Document] | AsyncDatabase[Document]
AnyCollection: TypeAlias = Collection[Document] | AsyncCollection[Document]
AnySession: TypeAlias = Any  # of the client that it is used with, None for no session
"""What the steps of `callboard.sans_io` work on: PyMongo's async API mirrors the plain one."""

TIMEOUT = 1.5  # seconds for Callboard's own operations: a request must be refused within 2 s


OPTIONS: dict[str, Any] = {
    "appname": "callboard",
    "connect": False,
    "connectTimeoutMS": 2_000,
    "serverSelectionTimeoutMS": 3_000,
    "journal": True,
    "w": "majority",
    "tz_aware": True,
    "uuidRepresentation": "standard",
}


class Client(MongoClient[dict[str, Any]]):
    """A client that callers share: one that somebody closes is replaced on next use."""

    def __init__(self, uri: str, on_close: Callable[[Client], None], **options: Any) -> None:
        self._on_close = on_close
        super().__init__(uri, **options)

    def close(self) -> None:
        """Close the connections."""
        self._on_close(self)
        super().close()


class AsyncClient(AsyncMongoClient[Document]):
    """As `Client`, on an event loop."""

    def __init__(self, uri: str, on_close: Callable[[AsyncClient], None], **options: Any) -> None:
        self._on_close = on_close
        super().__init__(uri, **options)

    async def close(self) -> None:
        """Close the connections."""
        self._on_close(self)
        await super().close()


class Store:
    """An application's database: the one that the path of ``uri`` (its MONGODB_URI) names.

    Each process has a client of its own, opened on first use.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._clients: dict[int, Client] = {}  # by process id: none may be used after a fork

    @classmethod
    def of(cls, settings: Settings) -> Store:
        """That of the application with these settings."""
        return cls(settings.mongodb_uri.get_secret_value())

    def database(self) -> Database[dict[str, Any]]:
        """The database.

        Does no I/O. An operation raises a `pymongo.errors.ConnectionFailure` when no server
        answers within 3 seconds, or within `pymongo.timeout` where that is set.
        """
        process = os.getpid()
        client = self._clients.get(process)
        if client is None:
            client = self._clients.setdefault(process, connect(self._uri, self._forget))
        return client.get_default_database()

    def close(self) -> None:
        """Close this process's connections; the next use opens new ones."""
        client = self._clients.get(os.getpid())
        if client is not None:
            client.close()

    def _forget(self, client: Client) -> None:
        for process, known in list(self._clients.items()):
            if known is client:
                del self._clients[process]


class AsyncStore:
    """As `Store`, for one event loop: its connections are that loop's."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._client: AsyncClient | None = None

    @classmethod
    def of(cls, settings: Settings) -> AsyncStore:
        """That of the application with these settings."""
        return cls(settings.mongodb_uri.get_secret_value())

    def database(self) -> AsyncDatabase[Document]:
        """The database. Does no I/O; an awaited operation raises as `Store.database` says."""
        if self._client is None:
            self._client = AsyncClient(self._uri, self._forget, **OPTIONS)
        return self._client.get_default_database()

    async def close(self) -> None:
        """Close the connections; the next use opens new ones."""
        if self._client is not None:
            await self._client.close()

    def _forget(self, client: AsyncClient) -> None:
        if self._client is client:
            self._client = None


def connect(uri: str, on_close: Callable[[Client], None] = lambda client: None) -> Client:
    """A client with the options that Callboard relies on; it connects on first use.

    ``on_close``: told of the client before it closes.
    """
    return Client(uri, on_close, **OPTIONS)


@contextmanager
def guarded(seconds: float = TIMEOUT, what: str = "database") -> Iterator[None]:
    """Bound Callboard's own operations and turn each failure into `DatabaseUnavailable`.

    ``what``: how the message names what is not available.
    """
    try:
        with pymongo.timeout(seconds):
            yield
    except PyMongoError as error:
        raise DatabaseUnavailable(
            f"The {what} is not available ({type(error).__name__}). Try again shortly."
        ) from error
