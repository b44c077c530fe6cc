"""Flask + dramatiq with results in Redis: the route blocks in ``get_result``."""

from __future__ import annotations

import os

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend
from flask import Flask

from benchmarks.jobs import JOBS

REDIS_URL = os.environ["REDIS_URL"]

# A caller who waits has a connection of its own, for as long as the job takes.
client = redis.Redis.from_url(REDIS_URL, max_connections=4096, socket_timeout=None)
broker = RedisBroker(client=client)
broker.add_middleware(Results(backend=RedisBackend(client=client), result_ttl=60_000))  # ms
dramatiq.set_broker(broker)
actors = {
    name: dramatiq.actor(actor_name=name, store_results=True)(job) for name, job in JOBS.items()
}

web = Flask(__name__)


@web.post("/<name>")
def call(name: str) -> dict[str, object]:
    message = actors[name].send()
    return {"success": True, "data": message.get_result(block=True, timeout=60_000)}
