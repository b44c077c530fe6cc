"""The floor: a Flask route and a worker that share two Redis lists and nothing else.

    python -m benchmarks.peers.redis_list

is the worker.
"""

from __future__ import annotations

import json
import os
import uuid

import redis
from flask import Flask

from benchmarks.jobs import JOBS

QUEUE = "jobs"
EXPIRY = 60  # seconds that an answer waits for its caller

# No socket timeout: a worker may wait for its next job as long as it likes.
client = redis.Redis.from_url(os.environ["REDIS_URL"], socket_timeout=None)
web = Flask(__name__)


@web.post("/<name>")
def call(name: str) -> dict[str, object]:
    reply = uuid.uuid4().hex
    client.lpush(QUEUE, json.dumps({"job": name, "reply": reply}))
    answer = pop(reply, timeout=10)
    return {"success": True, "data": json.loads(answer)}


def pop(key: str, timeout: int = 0) -> bytes | str:
    """The next entry of a list; waits ``timeout`` seconds for it, 0: for ever."""
    found = client.brpop([key], timeout=timeout)
    if found is None:
        raise TimeoutError(f"{key}: nothing within {timeout} s")
    return found[1]


def work() -> None:
    while True:
        asked = json.loads(pop(QUEUE))
        answer = json.dumps(JOBS[asked["job"]]())
        with client.pipeline(transaction=False) as pipe:
            pipe.lpush(asked["reply"], answer)
            pipe.expire(asked["reply"], EXPIRY)
            pipe.execute()


if __name__ == "__main__":
    work()
