"""Celery: tasks that start tasks, with ``apply_async``, ``group`` and ``chord``.

See `benchmarks.actions_starting` for what they measure.
"""

from __future__ import annotations

import os
from time import monotonic
from uuid import uuid4

from celery import Celery, chord, group
from flask import Flask, request

from benchmarks.stamps import stamp, stamped

REDIS_URL = os.environ["REDIS_URL"]
PARENTS = ("startEach", "startMany", "latency", "join")

app = Celery("peer", broker=REDIS_URL, backend=REDIS_URL)
app.conf.update(
    result_expires=60,  # seconds
    broker_connection_retry_on_startup=True,
    task_routes={name: {"queue": "parents"} for name in PARENTS} | {"held": {"queue": "held"}},
)


@app.task(name="noop")
def noop() -> None:
    """Do nothing."""


@app.task(name="held", ignore_result=True)
def held() -> None:
    """Do nothing, on a queue that nobody serves."""


@app.task(name="tell", ignore_result=True)
def tell(name: str) -> None:
    stamp(name)


@app.task(name="joined", ignore_result=True)
def joined(results: list[None], name: str) -> None:
    stamp(name)


@app.task(name="startEach")
def start_each(count: int) -> float:
    started = monotonic()
    for _ in range(count):
        held.apply_async()
    return monotonic() - started


@app.task(name="startMany")
def start_many(count: int, served: bool) -> float:
    child = noop if served else held
    started = monotonic()
    group(child.s() for _ in range(count)).apply_async()
    return monotonic() - started


@app.task(name="latency")
def latency(count: int) -> list[float]:
    found = []
    for _ in range(count):
        name, started = uuid4().hex, monotonic()
        tell.apply_async([name])
        found.append(stamped(name) - started)
    return found


@app.task(name="join")
def join(count: int) -> float:
    name, started = uuid4().hex, monotonic()
    chord(noop.s() for _ in range(count))(joined.s(name))
    return stamped(name) - started


web = Flask(__name__)


@web.post("/<name>")
def call(name: str) -> dict[str, object]:
    result = app.tasks[name].apply_async(kwargs=request.get_json())
    return {"success": True, "data": result.get(timeout=120)}
