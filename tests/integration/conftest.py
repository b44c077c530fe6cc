"""Fixtures: a database of the test's own, tools on it, runs and their history."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
import redis
import structlog
from ended_runs import ACTIONS, SEALER
from faces import AsyncFace, LoopThread, PlainFace
from flask import Flask
from flask.testing import FlaskClient
from pymongo import MongoClient
from pymongo.database import Database
from scheduled_app import ScheduledApp

from api import create_app
from api.services import Services
from callboard.connections.keys import Keys
from callboard.connections.mongodb import connect
from callboard.registry import Registry
from callboard.runs.history import History
from callboard.runs.outbox import Outbox
from callboard.runs.store import Runs
from callboard.sdk.results import ActionResult, ok
from callboard.settings import Settings, get_settings
from worker.archive.archiver import Archiver

KEYS = Keys()

JWT_SECRET = "test-secret-of-more-than-thirty-two-bytes"  # that of `make_token`


@pytest.fixture(autouse=True)
def loggers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each use binds a logger anew, so that `capture_logs` hears those of modules, too, whatever
    another test has configured."""
    configure = structlog.configure

    def uncached(**options: Any) -> None:
        configure(**{**options, "cache_logger_on_first_use": False})

    monkeypatch.setattr(structlog, "configure", uncached)


@pytest.fixture(scope="session")
def database_client(server_mongodb_uri: str) -> Iterator[MongoClient[dict[str, Any]]]:
    """One connected client for all tests."""
    with connect(server_mongodb_uri) as client:
        yield client


@pytest.fixture
def database(
    database_client: MongoClient[dict[str, Any]], database_name: str
) -> Iterator[Database[dict[str, Any]]]:
    """A fresh database: the one that `mongodb_uri` names."""
    yield database_client[database_name]
    database_client.drop_database(database_name)


@pytest.fixture(scope="session")
def loop_thread() -> Iterator[LoopThread]:
    """The event loop of all tests of async tools and handlers."""
    thread = LoopThread()
    yield thread
    thread.close()


@pytest.fixture(params=["plain", "async"])
def face(
    request: pytest.FixtureRequest, loop_thread: LoopThread, server_mongodb_uri: str
) -> Iterator[PlainFace | AsyncFace]:
    """What plain handlers get, and then what async ones get: one test body for both."""
    if request.param == "plain":
        yield PlainFace()
        return
    face = AsyncFace(loop_thread, server_mongodb_uri)
    yield face
    face.close()


@pytest.fixture
def make_tools(
    face: PlainFace | AsyncFace, database: Database[dict[str, Any]]
) -> Callable[..., Any]:
    """Build tools as a run has them: ``make_tools(user_id="alice", run_id=...)``."""

    def make(**options: Any) -> Any:
        given = {
            "database": lambda: database,
            "run_id": uuid4().hex,
            "user_id": "alice",
            "integration": echo,
        }
        return face.tools(**{**given, **options})

    return make


@pytest.fixture
def tools(make_tools: Callable[..., Any]) -> Any:
    return make_tools()


@pytest.fixture
def runs(redis_client: redis.Redis) -> Iterator[Runs]:
    runs = Runs(redis_client, SEALER, KEYS)
    yield runs
    runs._pipelined.close()


@pytest.fixture
def history(database: Database[dict[str, Any]]) -> History:
    return History(lambda: database, SEALER)


@pytest.fixture
def make_archiver(
    redis_client: redis.Redis, redis_url: str, history: History
) -> Iterator[Callable[..., Archiver]]:
    """Archivers as workers have them, not started: ``make_archiver()``."""
    clients: list[redis.Redis] = []

    def make(history: History = history, keep_params: int = 30) -> Archiver:
        def connect() -> redis.Redis:
            clients.append(redis.Redis.from_url(redis_url))
            return clients[-1]

        services: Any = SimpleNamespace(worker_id=uuid4().hex, connect=connect, keys=KEYS)
        outbox = Outbox(history._database, SEALER)
        return Archiver(services, history, outbox, keep_params)

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def archiver(make_archiver: Callable[..., Archiver]) -> Archiver:
    return make_archiver()


@pytest.fixture
def variables(redis_url: str, mongodb_uri: str) -> dict[str, str]:
    """The settings of `app`."""
    return {
        "REDIS_URL": redis_url,
        "MONGODB_URI": mongodb_uri,
        "SECRET_KEY": "k" * 40,
        "JWT_SECRET": "test-secret-of-more-than-thirty-two-bytes",
        "OWNER_USER_ID": "owner",
    }


@pytest.fixture
def app(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[ScheduledApp]:
    """An application with schedules, whose clock the test moves."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    app = ScheduledApp(get_settings())
    yield app
    app.close()
    get_settings.cache_clear()


@pytest.fixture
def api(
    monkeypatch: pytest.MonkeyPatch, redis_url: str, mongodb_uri: str
) -> Iterator[Callable[..., FlaskClient]]:
    """Builds the API on the test's servers: ``api(MONGODB_URI=...)``."""

    def build(**changes: str) -> FlaskClient:
        given = {
            "REDIS_URL": redis_url,
            "MONGODB_URI": mongodb_uri,
            "SECRET_KEY": "k" * 40,
            "JWT_SECRET": JWT_SECRET,
            "OWNER_USER_ID": "owner",
            **changes,
        }
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        get_settings.cache_clear()
        registry = Registry(actions={action.name: action for action in ACTIONS})
        built.append(create_app(Settings(), registry))
        return built[-1].test_client()

    built: list[Flask] = []
    yield build
    for app in built:
        app.extensions["callboard"].close()
    get_settings.cache_clear()


@pytest.fixture
def client(api: Callable[..., FlaskClient]) -> FlaskClient:
    return api()


@pytest.fixture
def services(client: FlaskClient) -> Iterator[Services]:
    """What the API of ``client`` stands on."""
    found: Services = client.application.extensions["callboard"]
    yield found
    found.runs._pipelined.close()


def echo(endpoint: str, data: Any = None) -> ActionResult:
    """Stands where the integrations are: answers what it was asked."""
    return ok({"endpoint": endpoint, "data": data})
