"""Flask + dramatiq with results in Redis: the route blocks in ``get_result``."""

from __future__ import annotations

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend
from flask import Flask

from benchmarks.jobs import JOBS

REDIS_URL = os.environ["REDIS_URL"]

broker = RedisBroker(url=REDIS_URL)
broker.add_middleware(Results(backend=RedisBackend(url=REDIS_URL), result_ttl=60_000))  # ms
dramatiq.set_broker(broker)
actors = {
    name: dramatiq.actor(actor_name=name, store_results=True)(job) for name, job in JOBS.items()
}

web = Flask(__name__)


@web.post("/<name>")
def call(name: str) -> dict[str, object]:
    message = actors[name].send()
    return {"success": True, "data": message.get_result(block=True, timeout=10_000)}
