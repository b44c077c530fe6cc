"""FastAPI + taskiq: the route awaits ``wait_result``, which polls Redis."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend

from benchmarks.jobs import noop_async, upsert_async, wait_async

REDIS_URL = os.environ["REDIS_URL"]
POLL = float(os.environ.get("TASKIQ_POLL", "0.002"))  # seconds; the default is 0.2

# No socket timeout: a worker may wait for its next task as long as it likes.
broker = ListQueueBroker(REDIS_URL, socket_timeout=None).with_result_backend(
    RedisAsyncResultBackend(REDIS_URL, keep_results=False, result_ex_time=60)
)
tasks = {
    "noop": broker.task(task_name="noop")(noop_async),
    "upsert": broker.task(task_name="upsert")(upsert_async),
    "wait": broker.task(task_name="wait")(wait_async),
}


@asynccontextmanager
async def _connected(app: FastAPI) -> AsyncIterator[None]:
    await broker.startup()
    yield
    await broker.shutdown()


web = FastAPI(lifespan=_connected)


@web.post("/{name}")
async def call(name: str) -> dict[str, object]:
    task = await tasks[name].kiq()
    result = await task.wait_result(check_interval=POLL, timeout=60)
    return {"success": True, "data": result.return_value}
