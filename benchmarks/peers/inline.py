"""The handler inside the request: no queue, no worker, nothing that outlives the process."""

from __future__ import annotations

from flask import Flask

from benchmarks.jobs import JOBS

web = Flask(__name__)


@web.post("/<name>")
def call(name: str) -> dict[str, object]:
    return {"success": True, "data": JOBS[name]()}
