"""The connection that all requests of an API process share: replies go to whom they belong."""

from __future__ import annotations

import gc
import hashlib
import os
import signal
import socket
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any
from uuid import uuid4

import pytest
import redis

from api.call import multiplexer
from api.call.multiplexer import Multiplexer
from callboard.processes import threads

ECHO = "redis.call('INCR', 'echoed:' .. ARGV[1]) return ARGV[1]"
SHA = hashlib.sha1(ECHO.encode(), usedforsecurity=False).hexdigest()
Eventually = Callable[..., None]


class Given:
    """A multiplexer whose messages are kept."""

    def __init__(self, url: str) -> None:
        self.client = redis.Redis.from_url(
            url, protocol=3, socket_timeout=1.5, socket_connect_timeout=1.5
        )
        self.channel = f"given:{uuid4().hex}"
        self.messages: list[bytes] = []
        self.intervals = 0
        self.multiplexer = Multiplexer(
            self.client, self.channel, scripts=[ECHO], on_message=self.messages.append,
            on_interval=self._count,
        )  # fmt: skip

    def _count(self) -> None:
        self.intervals += 1

    def post(self, *command: Any) -> Future[Any]:
        told: Future[Any] = Future()
        self.multiplexer.post(command, told.set_result)
        return told

    def echo(self, text: str) -> Future[Any]:
        return self.post("EVALSHA", SHA, 0, text)


@pytest.fixture
def given(redis_url: str) -> Iterator[Given]:
    given = Given(redis_url)
    yield given
    given.multiplexer.close()


def test_each_of_many_callers_gets_its_own_reply(given: Given) -> None:
    def call(number: int) -> bool:
        texts = [f"{number}-{i}" for i in range(200)]
        return all(given.echo(text).result(5) == text.encode() for text in texts)

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(call, range(16)))


def test_an_error_is_its_callers_alone(given: Given) -> None:
    right, wrong = given.echo("right"), given.post("NO SUCH COMMAND")
    after = given.echo("after")
    assert isinstance(wrong.result(5), redis.ResponseError)
    assert (right.result(5), after.result(5)) == (b"right", b"after")


def test_a_cut_connection_is_replaced(given: Given, redis_client: redis.Redis) -> None:
    for number in range(5):
        assert given.echo(str(number)).result(5) == str(number).encode()
        redis_client.client_kill_filter(_type="pubsub", skipme=True)


def test_what_was_not_answered_is_sent_once_more(given: Given, redis_client: redis.Redis) -> None:
    assert given.echo("before").result(5) == b"before"
    redis_client.client_pause(10_000, all=False)  # writes only
    told = given.echo("again")
    redis_client.client_kill_filter(_type="pubsub", skipme=True)
    redis_client.client_unpause()
    assert told.result(5) == b"again"


def test_a_server_that_has_forgotten_the_script_is_told_it(
    given: Given, redis_client: redis.Redis
) -> None:
    assert given.echo("before").result(5) == b"before"
    redis_client.script_flush()
    assert given.echo("after").result(5) == b"after"


def test_messages_come_among_replies(
    given: Given, redis_client: redis.Redis, eventually: Eventually
) -> None:
    assert given.echo("subscribed").result(5)
    for number in range(100):
        redis_client.publish(given.channel, f"message {number}")
        assert given.echo(str(number)).result(5) == str(number).encode()
    eventually(lambda: given.messages == [b"message %d" % n for n in range(100)])


def test_each_connection_begins_with_an_interval(
    given: Given, redis_client: redis.Redis, eventually: Eventually
) -> None:
    assert given.echo("connected").result(5)
    eventually(lambda: given.intervals == 1)
    redis_client.client_kill_filter(_type="pubsub", skipme=True)
    eventually(lambda: given.intervals == 2)


def test_where_no_broker_is_an_order_is_told_so_soon() -> None:
    given = Given("redis://127.0.0.1:1/0")
    try:
        assert isinstance(given.echo("nobody").result(2), redis.ConnectionError)
    finally:
        given.multiplexer.close()


def test_an_order_that_was_given_up_is_not_sent_again(
    given: Given, redis_client: redis.Redis, eventually: Eventually
) -> None:
    """The server hangs; its caller was told so. What comes later does not wait behind it."""
    assert given.echo("before").result(5)
    pid = redis_client.info("server")["process_id"]
    os.kill(pid, signal.SIGSTOP)
    try:
        order = given.multiplexer.post(("EVALSHA", SHA, 0, "given-up"), pytest.fail)
        given.multiplexer.give_up(order)
    finally:
        os.kill(pid, signal.SIGCONT)
    eventually(lambda: given.echo("after").result(5) == b"after")
    assert int(redis_client.get("echoed:given-up") or 0) <= 1


@contextmanager
def nowhere() -> Iterator[int]:
    """A port on which nobody listens."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port: int = server.getsockname()[1]
    yield port


@contextmanager
def hanging_up() -> Iterator[int]:
    """The port of a server that accepts each connection, and closes it."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                server.accept()[0].close()
            except OSError:
                return

    serving = threading.Thread(target=serve)
    serving.start()
    try:
        yield server.getsockname()[1]
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        serving.join()


@pytest.mark.parametrize("broker", [nowhere, hanging_up])
def test_a_broker_that_stays_away_costs_no_memory(
    broker: Callable[[], Any], eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multiplexer, "RECONNECT_SECONDS", 0.0)
    tries = []
    disconnected = Multiplexer._disconnected
    monkeypatch.setattr(
        Multiplexer, "_disconnected", lambda *a: tries.append(1) or disconnected(*a)
    )
    with broker() as port:
        given = Given(f"redis://127.0.0.1:{port}/0")
        try:
            eventually(lambda: len(tries) > 100)
            tracemalloc.start()
            gc.collect()
            before, begun = tracemalloc.get_traced_memory()[0], len(tries)
            eventually(lambda: len(tries) - begun > 300)
            gc.collect()
            grown = tracemalloc.get_traced_memory()[0] - before
            assert grown / (len(tries) - begun) < 1024  # bytes a try; a connection has 38 KiB
        finally:
            tracemalloc.stop()
            given.multiplexer.close()
            given.client.close()


def test_a_callback_that_raises_costs_nobody_else_the_line(
    given: Given, redis_client: redis.Redis, eventually: Eventually
) -> None:
    def broken(_: bytes) -> None:
        raise KeyError("what")

    assert given.echo("before").result(5)
    given.multiplexer._on_message = broken
    redis_client.publish(given.channel, "a message")
    eventually(lambda: "replies" in threads.down())
    given.multiplexer._on_message = given.messages.append
    assert given.echo("after").result(5) == b"after"
