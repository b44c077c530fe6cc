"""Thousands of callers, many of whom do not wait for the end: nothing of them stays."""

from __future__ import annotations

import http.client
import os
import random
import signal
import socket
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import redis
from local_stack import Stack

CALLS, CALLERS = 5_000, 25
FORGETFUL = 0.2  # the share of calls that time out or hang up

Eventually = Callable[..., None]


def test_nothing_leaks_from_callers_who_leave(app_stack: Stack, eventually: Eventually) -> None:
    with redis.Redis.from_url(app_stack.announced["environment"]["REDIS_URL"]) as broker:
        with ThreadPoolExecutor(CALLERS) as pool:  # so that every child has its connections
            list(pool.map(lambda _: app_stack.call("slow", {"seconds": 0.2}), range(CALLERS)))
        waiting = set(endless(broker))  # what other tests have left for a later time
        before = broker.info("clients")
        channels = len(broker.pubsub_channels())
        with ThreadPoolExecutor(CALLERS) as pool:
            counts = sum(pool.map(lambda seed: caller(app_stack, seed), range(CALLERS)), Counter())
        assert counts[200] + counts[504] + counts["hung up"] == CALLS
        assert counts[504] > 0
        assert counts["hung up"] > CALLS * FORGETFUL / 4

        eventually(lambda: broker.zcard("callboard:open") == 0)
        eventually(lambda: set(endless(broker)) <= waiting)
        eventually(lambda: len(broker.pubsub_channels()) <= channels)
        for kind in ("connected_clients", "pubsub_clients", "blocked_clients"):
            eventually(lambda kind=kind: broker.info("clients")[kind] <= before[kind] + 4)


def caller(stack: Stack, seed: int) -> Counter[object]:
    """One client that sends its share of the calls, one after the other."""
    chance, counts = random.Random(seed), Counter[object]()
    address, token = urlsplit(stack.url), stack.token("alice")
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
    headers = {"Authorization": f"Bearer {token}"}
    for _ in range(CALLS // CALLERS):
        draw = chance.random()
        if draw < FORGETFUL / 2:
            hang_up(address.hostname, address.port, token)
            counts["hung up"] += 1
            continue
        more = {"Prefer": "wait=0"} if draw < FORGETFUL else {}
        connection.request("POST", "/api/actions/echo", headers={**headers, **more})
        response = connection.getresponse()
        response.read()
        counts[response.status] += 1
    connection.close()
    return counts


def hang_up(host: str | None, port: int | None, token: str) -> None:
    head = "POST /api/actions/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n"
    with socket.create_connection((host or "", port or 0)) as connection:
        connection.sendall(f"{head}Authorization: Bearer {token}\r\n\r\n".encode())


def endless(broker: redis.Redis) -> list[bytes]:
    """The keys of runs and replies that would stay for ever."""
    kinds = ("callboard:run:*", "callboard:reply:*", "callboard:idempotency:*")
    return [key for kind in kinds for key in broker.scan_iter(kind) if broker.ttl(key) == -1]


def test_an_api_that_dies_with_a_call_leaves_the_run_to_its_worker(
    app_stack: Stack, eventually: Eventually, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    with (
        ThreadPoolExecutor(1) as pool,
        redis.Redis.from_url(app_stack.announced["environment"]["REDIS_URL"]) as broker,
    ):
        cut = pool.submit(app_stack.call, "stepwise", {"until": [str(gate)]})
        eventually(lambda: broker.zcard("callboard:open") == 1)
        [run_id] = broker.zrange("callboard:open", 0, -1)
        servers = [pid for pid, line in app_stack.descendants().items() if "gunicorn" in line]
        os.kill(servers[-1], signal.SIGKILL)
        assert cut.exception() is not None
        gate.touch()
        eventually(lambda: broker.zcard("callboard:open") == 0)
    eventually(lambda: _answers(app_stack))
    run = app_stack.run(run_id.decode())
    assert (run["status"], run["attempts"]) == ("succeeded", 1)


def _answers(stack: Stack) -> bool:
    try:
        return stack.call("echo").status_code == 200
    except httpx.TransportError:
        return False
