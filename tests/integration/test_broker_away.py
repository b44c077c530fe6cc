"""The broker hangs, drops its connections or is not there: 503 in time, and back by itself."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import jwt
import pytest
import redis
from local_http import served

from api import create_app
from callboard import action, ok
from callboard.registry import Registry
from callboard.settings import Settings

SOON = 6.0  # seconds: 2, and what a busy machine adds
SECRET = "a-test-secret-of-at-least-32-bytes"


@action
def never_run(ctx: Any) -> Any:
    return ok()


def settings(redis_url: str) -> Settings:
    return Settings(
        **{
            "REDIS_URL": redis_url,
            "MONGODB_URI": "mongodb://127.0.0.1:1/never",
            "SECRET_KEY": "k" * 40,
            "JWT_SECRET": SECRET,
        }
    )


Call = Callable[[], httpx.Response]


@pytest.fixture
def api() -> Iterator[Callable[[str], Call]]:
    """Starts an API on this broker; the answer calls it."""
    with ExitStack() as stack:

        def start(redis_url: str) -> Call:
            app = create_app(settings(redis_url), Registry(actions={"neverRun": never_run}))
            url = stack.enter_context(served(app))
            client = stack.enter_context(httpx.Client(base_url=url, timeout=60))
            token = jwt.encode({"sub": "alice", "exp": time.time() + 60}, SECRET)
            headers = {"Authorization": f"Bearer {token}", "Prefer": "respond-async"}
            return lambda: client.post("/api/actions/neverRun", headers=headers)

        yield start


def timed(call: Call) -> tuple[httpx.Response, float]:
    started = time.monotonic()
    return call(), time.monotonic() - started


def assert_unavailable(response: httpx.Response) -> None:
    assert response.status_code == 503
    assert response.headers["Retry-After"]
    assert "broker" in response.json()["error"]


def test_a_broker_that_is_not_there(api: Callable[[str], Call]) -> None:
    response, seconds = timed(api("redis://127.0.0.1:1/0"))
    assert_unavailable(response)
    assert seconds < SOON


def test_a_broker_that_hangs_and_comes_back(
    api: Callable[[str], Call], redis_url: str, redis_client: redis.Redis,
    eventually: Callable[..., None],
) -> None:  # fmt: skip
    call = api(redis_url)
    assert call().status_code == 202
    pid = redis_client.info("server")["process_id"]
    os.kill(pid, signal.SIGSTOP)
    try:
        response, seconds = timed(call)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert_unavailable(response)
    assert seconds < SOON
    eventually(lambda: call().status_code == 202)


def test_connections_that_are_cut_are_not_noticed(
    api: Callable[[str], Call], redis_url: str, redis_client: redis.Redis
) -> None:
    call = api(redis_url)
    assert call().status_code == 202
    for _ in range(5):
        redis_client.client_kill_filter(_type="normal", skipme=True)
        redis_client.client_kill_filter(_type="pubsub", skipme=True)
        assert call().status_code == 202


def test_a_full_broker_refuses_and_accepts_again(
    api: Callable[[str], Call], redis_url: str, redis_client: redis.Redis
) -> None:
    call = api(redis_url)
    redis_client.config_set("maxmemory", 1)
    try:
        response, seconds = timed(call)
    finally:
        redis_client.config_set("maxmemory", 0)
    assert_unavailable(response)
    assert seconds < SOON
    assert call().status_code == 202


def test_a_broker_whose_disk_is_full_refuses_and_accepts_again(
    api: Callable[[str], Call], redis_url: str, redis_client: redis.Redis,
    eventually: Callable[..., None],
) -> None:  # fmt: skip
    call = api(redis_url)
    pid = redis_client.info("server")["process_id"]
    unlimited = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    accepted = []

    def refused() -> bool:
        """The first write is in memory before the server knows; what it accepted, it has."""
        response = call()
        accepted.extend([response.headers["Run-Id"]] if response.status_code == 202 else [])
        return response.status_code != 202

    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, unlimited[1]))
    try:
        eventually(refused)
        response, seconds = timed(call)
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)
    assert_unavailable(response)
    assert seconds < SOON
    eventually(lambda: call().status_code == 202)
    assert all(redis_client.exists(f"callboard:run:{run_id}") for run_id in accepted)
