"""The store: this process's connection to MongoDB, opened on first use.

Every write is acknowledged by a majority and journaled: without the journal, a database that
is killed loses writes that it had acknowledged.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pymongo
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import PyMongoError

from callboard.errors import DatabaseUnavailable
from callboard.settings import get_settings

__all__ = ["close_database", "connect", "database", "guarded", "open_database"]

TIMEOUT = 1.5  # seconds for Callboard's own operations: a request must be refused within 2 s


class Client(MongoClient[dict[str, Any]]):
    """A client that callers share: one that somebody closes is replaced on next use."""

    def close(self) -> None:
        """Close the connections."""
        for process, client in list(_clients.items()):
            if client is self:
                del _clients[process]
        super().close()


_clients: dict[int, Client] = {}  # by process id: a client must not be used after a fork


def database() -> Database[dict[str, Any]]:
    """The application's database: the one that the path of MONGODB_URI names.

    Does no I/O. An operation raises a `pymongo.errors.ConnectionFailure` when no server
    answers within 3 seconds, or within `pymongo.timeout` where that is set.
    """
    process = os.getpid()
    client = _clients.get(process)
    if client is None:
        uri = get_settings().mongodb_uri.get_secret_value()
        client = _clients.setdefault(process, connect(uri))
    return client.get_default_database()


def open_database(uri: str) -> None:
    """Have `database` mean this one in this process, whatever the settings say."""
    close_database()
    _clients[os.getpid()] = connect(uri)


def close_database() -> None:
    """Close this process's connections; the next use opens new ones."""
    client = _clients.pop(os.getpid(), None)
    if client is not None:
        client.close()


def connect(uri: str) -> Client:
    """A client with the options that Callboard relies on; it connects on first use."""
    return Client(
        uri,
        appname="callboard",
        connect=False,
        connectTimeoutMS=2_000,
        serverSelectionTimeoutMS=3_000,
        journal=True,
        w="majority",
        tz_aware=True,
        uuidRepresentation="standard",
    )


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
