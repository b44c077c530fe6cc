"""A real worker, and somebody who writes whatever he likes into Redis."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import redis
from ended_runs import SEALER
from malformed import messages, obeyed_by_nobody, published

from callboard.connections import heartbeat
from callboard.connections.keys import Keys
from callboard.registry import discover
from callboard.runs import message
from callboard.runs.seal import Call
from callboard.runs.store import Runs

KEYS = Keys()

QUEUE = "callboard"
APP = Path(__file__).parents[1] / "acceptance"  # the actions of its folder ``app``

Eventually = Callable[..., None]


class Worker:
    """`celery -A worker worker`, with one child."""

    def __init__(self, variables: dict[str, str], log: Path) -> None:
        self.name = f"gate-{uuid4().hex[:8]}@test"
        command = [*("-m", "celery", "-A", "worker", "worker"), "--hostname", self.name, "-c", "1"]
        self.log = log
        self.variables = {**variables, "CALLBOARD_ACTIONS": "app", "PYTHONPATH": str(APP)}
        with log.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, *command],
                env={**os.environ, **self.variables},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def lives(self) -> bool:
        return self.process.poll() is None

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def start(variables: dict[str, str], tmp_path: Path) -> Iterator[Callable[[], Worker]]:
    workers: list[Worker] = []

    def start() -> Worker:
        workers.append(Worker(variables, tmp_path / f"worker-{len(workers)}.log"))
        return workers[-1]

    yield start
    for worker in workers:
        worker.stop()


def written(task: str = "actions.echo") -> str:
    wakeup = message.Wakeup(task, str(uuid4()), "{}")
    return message.write(QUEUE, wakeup, SEALER.sign(*wakeup))


def echo(runs: Runs) -> str:
    """A call; the id of its run."""
    call, action = Call(caller="alice"), discover("app").get("echo")
    return runs.accept(str(uuid4()), action, call, max_queue=9999, result_ttl=60).run_id


def refused(client: redis.Redis) -> int:
    return int(client.hget(KEYS.counters, "refused") or 0)


def test_what_is_not_ours_is_dropped_and_counted_and_the_worker_lives(
    start: Callable[[], Worker],
    runs: Runs,
    redis_client: redis.Redis,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(APP))
    hostile = list(messages(written))
    assert len(hostile) > 60
    redis_client.rpush(QUEUE, *hostile)
    worker = start()  # finds them
    eventually(lambda: not redis_client.exists(QUEUE) or not worker.lives)
    assert worker.lives, worker.log.read_text()[-3000:]
    eventually(lambda: refused(redis_client) >= len(hostile))
    assert refused(redis_client) == len(hostile)

    first = echo(runs)  # a turn's first message, and then those that the child takes by itself
    redis_client.lpush(QUEUE, *hostile)
    last = echo(runs)
    eventually(lambda: runs.results([first, last]).keys() == {first, last})
    assert refused(redis_client) == 2 * len(hostile)
    assert worker.lives


def test_a_signed_message_is_obeyed_in_its_run_alone(
    start: Callable[[], Worker],
    runs: Runs,
    redis_client: redis.Redis,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(APP))
    worker = start()
    eventually(lambda: worker.name in heartbeat.seen(redis_client, KEYS.worker))
    for text in obeyed_by_nobody(written()):
        redis_client.lpush(QUEUE, text)
        redis_client.lpush(QUEUE + "\x06\x163", text)
    run_id = echo(runs)
    eventually(lambda: runs.results([run_id]))
    assert worker.lives


def test_remote_control_looks_and_touches_nothing(
    start: Callable[[], Worker],
    runs: Runs,
    redis_client: redis.Redis,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(APP))
    worker = start()
    eventually(redis_client.pubsub_numpat)
    for text in published():
        for channel in ("celery.pidbox", "celeryev/worker.heartbeat", "celeryev"):
            redis_client.publish(f"/0.{channel}", text)
    run_id = echo(runs)
    eventually(lambda: runs.results([run_id]))
    assert worker.lives
    answer = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "worker", "inspect", "stats", "-d", worker.name],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **worker.variables},
    )
    assert "prefetch_count" in answer.stdout, answer.stdout + answer.stderr


BOUND = ("callboard", "celery.pidbox", "celeryev", "celery")


def test_bindings_of_another_type_end_no_worker(
    start: Callable[[], Worker],
    runs: Runs,
    redis_client: redis.Redis,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(APP))
    for name in BOUND:
        redis_client.set(f"_kombu.binding.{name}", "no binding")
    worker = start()  # it writes them
    first = echo(runs)
    eventually(lambda: runs.results([first]) or not worker.lives)
    assert worker.lives, worker.log.read_text()[-3000:]
    for name in BOUND:
        redis_client.delete(f"_kombu.binding.{name}")
        redis_client.lpush(f"_kombu.binding.{name}", "no binding")
    last = echo(runs)
    eventually(lambda: runs.results([last]))
    assert worker.lives
