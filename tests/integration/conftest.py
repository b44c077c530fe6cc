"""Fixtures: a database of the test's own, and tools on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from pymongo import MongoClient
from pymongo.database import Database

from callboard.results import ActionResult, ok
from callboard.stack.secantus import MongodbServer
from callboard.store import connect
from worker.tools import Tools


@pytest.fixture(scope="session")
def database_client(mongodb_server: MongodbServer) -> Iterator[MongoClient[dict[str, Any]]]:
    """One connected client for all tests."""
    with connect(mongodb_server.uri) as client:
        yield client


@pytest.fixture
def database(
    database_client: MongoClient[dict[str, Any]], database_name: str
) -> Iterator[Database[dict[str, Any]]]:
    """A fresh database: the one that `mongodb_uri` names."""
    yield database_client[database_name]
    database_client.drop_database(database_name)


@pytest.fixture
def make_tools(database: Database[dict[str, Any]]) -> Callable[..., Tools]:
    """Build tools as a run has them: ``make_tools(user_id="alice", run_id=...)``."""

    def make(**options: Any) -> Tools:
        given = {
            "database": lambda: database,
            "run_id": uuid4().hex,
            "user_id": "alice",
            "integration": echo,
        }
        return Tools(**{**given, **options})

    return make


@pytest.fixture
def tools(make_tools: Callable[..., Tools]) -> Tools:
    return make_tools()


def echo(endpoint: str, data: Any = None) -> ActionResult:
    """Stands where the integrations are: answers what it was asked."""
    return ok({"endpoint": endpoint, "data": data})
