"""taskiq: tasks that start tasks. It has no group: many at once are started over 16 connections.

See `benchmarks.actions_starting` for what they measure.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any
from uuid import uuid4

from fastapi import FastAPI
from taskiq import TaskiqEvents
from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend

from benchmarks.stamps import stamp, stamped

REDIS_URL = os.environ["REDIS_URL"]
CONNECTIONS = 16  # that start at once: more are slower

broker = ListQueueBroker(
    REDIS_URL, queue_name="children", socket_timeout=None, max_connection_pool_size=CONNECTIONS
)
nobody = ListQueueBroker(
    REDIS_URL, queue_name="held", socket_timeout=None, max_connection_pool_size=CONNECTIONS
)
parents = ListQueueBroker(REDIS_URL, queue_name="parents", socket_timeout=None).with_result_backend(
    RedisAsyncResultBackend(REDIS_URL, keep_results=False, result_ex_time=60)
)


@broker.task(task_name="noop")
async def noop() -> None:
    """Do nothing."""


@nobody.task(task_name="held")
async def held() -> None:
    """Do nothing, on a queue that nobody serves."""


@broker.task(task_name="tell")
async def tell(name: str) -> None:
    await asyncio.to_thread(stamp, name)


@parents.task(task_name="startEach")
async def start_each(count: int) -> float:
    started = monotonic()
    for _ in range(count):
        await held.kiq()
    return monotonic() - started


@parents.task(task_name="startMany")
async def start_many(count: int, served: bool) -> float:
    child = noop if served else held
    left = iter(range(count))

    async def start() -> None:
        for _ in left:
            await child.kiq()

    started = monotonic()
    await asyncio.gather(*(start() for _ in range(CONNECTIONS)))
    return monotonic() - started


@parents.task(task_name="latency")
async def latency(count: int) -> list[float]:
    found = []
    for _ in range(count):
        name, started = uuid4().hex, monotonic()
        await tell.kiq(name)
        found.append(await asyncio.to_thread(stamped, name) - started)
    return found


@parents.on_event(TaskiqEvents.WORKER_STARTUP)
async def _connect_children(_: Any) -> None:
    await broker.startup()
    await nobody.startup()


tasks: dict[str, Any] = {"startEach": start_each, "startMany": start_many, "latency": latency}


@asynccontextmanager
async def _connected(app: FastAPI) -> AsyncIterator[None]:
    await parents.startup()
    yield
    await parents.shutdown()


web = FastAPI(lifespan=_connected)


@web.post("/{name}")
async def call(name: str, params: dict[str, Any]) -> dict[str, object]:
    task = await tasks[name].kiq(**params)
    result = await task.wait_result(check_interval=0.02, timeout=120)
    result.raise_for_error()
    return {"success": True, "data": result.return_value}
