"""Fixtures for all tests: the real servers, fresh databases on them, tokens."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pymongo
import pytest
import redis

from callboard.stack.folder import DataFolder
from callboard.stack.secantus import MongodbServer, start_mongodb
from callboard.stack.supervisor import Supervisor
from callboard.stack.tokens import mint_token
from callboard.stack.valkey import ValkeyServer, start_valkey

JWT_SECRET = "test-secret-of-more-than-thirty-two-bytes"


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """A Valkey of this test session's own."""
    with Supervisor() as supervisor:
        yield start_valkey(supervisor, _folder(tmp_path_factory), "valkey-password").wait()


@pytest.fixture(scope="session")
def mongodb_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MongodbServer]:
    """A MongoDB of this test session's own."""
    with Supervisor() as supervisor:
        yield start_mongodb(supervisor, _folder(tmp_path_factory), "mongodb-password").wait()


def _folder(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    folder = DataFolder(tmp_path_factory.mktemp("stack"))
    folder.create()
    return folder


@pytest.fixture
def redis_url(valkey_server: ValkeyServer) -> Iterator[str]:
    """The REDIS_URL of an empty Redis; emptied again after the test that filled it."""
    with redis.Redis.from_url(valkey_server.url) as client:
        assert client.dbsize() == 0, "this Redis holds data that the test did not write"
        yield valkey_server.url
        client.flushdb()


@pytest.fixture
def database_name() -> str:
    """A name that no other test uses."""
    return f"test_{uuid.uuid4().hex}"


@pytest.fixture
def mongodb_uri(mongodb_server: MongodbServer, database_name: str) -> Iterator[str]:
    """A MONGODB_URI that names a database of this test's own."""
    uri = mongodb_server.database_uri(database_name)
    yield uri
    with pymongo.MongoClient[dict[str, Any]](uri) as client:
        client.drop_database(database_name)


@pytest.fixture
def make_token() -> Callable[..., str]:
    """Sign a token with the tests' JWT_SECRET: ``make_token(sub="alice", ttl=60, role="x")``."""

    def make(sub: str = "alice", *, ttl: int = 300, **claims: Any) -> str:
        return mint_token(sub, JWT_SECRET, ttl=ttl, claims=claims)

    return make


@pytest.fixture(scope="session")
def eventually() -> Callable[..., None]:
    """Wait until a condition holds: ``eventually(lambda: ..., within=5)``; fails after that."""

    def wait(condition: Callable[[], object], *, within: float = 10.0) -> None:
        deadline = time.monotonic() + within
        while not condition():
            assert time.monotonic() < deadline, f"not within {within:g} s"
            time.sleep(0.02)

    return wait


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[redis.Redis]:
    """A client of the empty Redis."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture(scope="session")
def program() -> Callable[..., str]:
    """The path of a program that a test cannot do without: ``program("node")``.

    Without it the test is skipped; in CI, which installs it, the test fails.
    """

    def find(*names: str) -> str:
        for name in names:
            if path := shutil.which(name):
                return path
        reason = f"needs {' or '.join(names)}, which this machine does not have"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)

    return find
