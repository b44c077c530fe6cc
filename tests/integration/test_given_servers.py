"""Servers that the user named: found, or told within five seconds."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator

import pytest

from callboard.errors import ServiceUnavailable
from callboard.stack.given import GivenServer, given_mongodb, given_redis

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
    assert time.monotonic() - started < 5
    assert "secret" not in str(raised.value)
