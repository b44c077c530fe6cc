"""The client whose scripts share one connection: replies go to whom they belong."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from callboard.broker import BatchingRedis

ECHO = "return ARGV[1]"


class Stopped(BaseException):
    """What a stopped handler raises wherever it is."""


@pytest.fixture
def client(redis_url: str) -> Iterator[BatchingRedis]:
    pool = redis.ConnectionPool.from_url(redis_url, socket_timeout=2)
    with BatchingRedis(connection_pool=pool) as client:
        yield client
    pool.disconnect()


def test_each_of_many_callers_gets_its_own_reply(client: BatchingRedis) -> None:
    echo = client.register_script(ECHO)

    def call(number: int) -> bool:
        return all(echo(args=[f"{number}-{i}"]) == f"{number}-{i}".encode() for i in range(200))

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(call, range(16)))


def test_an_error_is_its_callers_alone(client: BatchingRedis) -> None:
    echo, wrong = client.register_script(ECHO), client.register_script("return redis.call('NO')")

    def call(number: int) -> bool:
        if number % 2:
            return echo(args=["x"]) == b"x"
        with pytest.raises(redis.ResponseError):
            wrong()
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(call, range(200)))


def test_a_cut_connection_is_replaced(client: BatchingRedis, redis_client: redis.Redis) -> None:
    echo = client.register_script(ECHO)
    for number in range(5):
        assert echo(args=[number]) == str(number).encode()
        redis_client.client_kill_filter(_type="normal", skipme=True)


def test_a_call_that_is_cut_short_leaves_no_reply_and_nobody_waiting(
    client: BatchingRedis, monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., None]
) -> None:
    echo = client.register_script(ECHO)
    assert echo(args=["before"]) == b"before"
    read, gate = client._read, threading.Event()

    def stopped_once() -> object:
        gate.wait(5)
        monkeypatch.setattr(client, "_read", read)
        raise Stopped

    monkeypatch.setattr(client, "_read", stopped_once)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(echo, args=["first"])
        eventually(lambda: client._batch)
        others = [pool.submit(echo, args=[f"later-{i}"]) for i in range(3)]
        eventually(lambda: len(client._gathered) == 3)
        gate.set()
        assert isinstance(first.exception(timeout=5), Stopped)
        assert [o.result(timeout=5) for o in others] == [f"later-{i}".encode() for i in range(3)]
    assert echo(args=["after"]) == b"after"
