"""Servers that the user named: found, or told within five seconds."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from pymongo import MongoClient

from callboard.errors import ServiceUnavailable
from callboard.stack.given import GivenServer, given_mongodb, given_redis
from callboard.testing.inline import InlineStack
from callboard.testing.servers import named_servers, own_database, own_redis, with_database

Ask = Callable[[str], GivenServer]

URLS = [
    pytest.param(given_redis, "redis://:secret@{}/0", "REDIS_URL", id="redis"),
    pytest.param(given_mongodb, "mongodb://a:secret@{}/shop", "MONGODB_URI", id="mongodb"),
]


def test_one_that_answers_is_fine(redis_url: str, mongodb_uri: str) -> None:
    given_redis(redis_url).wait()
    given_mongodb(mongodb_uri).wait()


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(("ask", "url", "variable"), URLS)
@pytest.mark.parametrize("kind", ["refuses", "silent"])
def test_one_that_does_not_is_told_within_5_seconds(
    ask: Ask, url: str, variable: str, kind: str, silent: str
) -> None:
    started = time.monotonic()
    address = silent if kind == "silent" else "127.0.0.1:1"
    with pytest.raises(ServiceUnavailable, match=f"The server that {variable} names") as raised:
        ask(url.format(address)).wait()
    assert time.monotonic() - started < 15  # 5, and what a busy machine adds
    assert "secret" not in str(raised.value)


# What tests do on such servers


def test_tests_have_an_empty_redis_database_and_leave_none_of_theirs(
    redis_url: str, redis_client: redis.Redis
) -> None:
    redis_client.set("theirs", 1)
    with own_redis(redis_url) as first, own_redis(redis_url) as second:
        assert len({redis_url, first, second}) == 3
        with redis.Redis.from_url(second) as client:
            client.set("ours", 1)
    assert redis_client.keys() == [b"theirs"]
    with redis.Redis.from_url(second) as client:
        assert client.dbsize() == 0


def test_tests_have_a_database_of_their_own_and_drop_it(mongodb_uri: str) -> None:
    with own_database(mongodb_uri) as uri, MongoClient(uri) as client:
        own = client.get_default_database()
        assert own.name.startswith("callboard_test_")
        own["things"].insert_one({})
    with MongoClient(mongodb_uri) as client:
        assert own.name not in client.list_database_names()


@pytest.mark.parametrize(
    ("uri", "options"),
    [
        ("mongodb://h/shop", ""),
        ("mongodb://u:p@h:1,i:2/shop", "?authSource=shop"),
        ("mongodb://u:p@h/shop?replicaSet=a&authSource=admin", "?replicaSet=a&authSource=admin"),
        ("mongodb://u:p@h/shop?replicaSet=a", "?replicaSet=a&authSource=shop"),
        ("mongodb+srv://u:p@h/shop?appName=a", "?appName=a"),
    ],
)
def test_the_user_is_still_looked_up_where_it_was(uri: str, options: str) -> None:
    server = uri.rpartition("/shop")[0]
    assert with_database(uri, "other") == f"{server}/other{options}"


def test_servers_are_named_by_the_environment_or_the_env_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("REDIS_URL=redis://file\nMONGODB_URI=mongodb://file\nX=1\n")
    given = {"REDIS_URL": "redis://environment", "MONGODB_URI": ""}
    assert named_servers(given, tmp_path) == {
        "REDIS_URL": "redis://environment",
        "MONGODB_URI": "mongodb://file",
    }


def test_calls_in_this_process_run_on_a_named_server(mongodb_uri: str, tmp_path: Path) -> None:
    with (
        InlineStack.started(tmp_path, {}, mongodb_uri) as stack,
        stack.fresh() as call,
    ):
        assert call("ensureUserRow").success
        assert call.database.name.startswith("callboard_test_")
    assert not list(tmp_path.iterdir())
