"""Flask + Celery: the route blocks in ``AsyncResult.get()``. Also the tasks of Flower's peer."""

from __future__ import annotations

import os

from celery import Celery
from flask import Flask

from benchmarks.jobs import JOBS

REDIS_URL = os.environ["REDIS_URL"]

app = Celery("peer", broker=REDIS_URL, backend=REDIS_URL)
app.conf.update(
    result_expires=60,  # seconds
    broker_pool_limit=64,  # "more if you have many green threads"
    redis_max_connections=256,
    broker_connection_retry_on_startup=True,
)
for name, job in JOBS.items():
    app.task(job, name=name)

web = Flask(__name__)


@web.post("/<name>")
def call(name: str) -> dict[str, object]:
    result = app.tasks[name].delay()
    return {"success": True, "data": result.get(timeout=60)}
