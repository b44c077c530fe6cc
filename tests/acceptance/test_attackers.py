"""Somebody who reads and writes the broker, opens Flower and reads every log: what he gets.

And what he sends to the API, with a token of his own, or one that he made up.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import jwt
import pytest
import redis
from local_stack import Stack, started

from callboard.connections.keys import Keys
from callboard.registry import discover
from callboard.runs import message
from callboard.runs.seal import Call, Sealer
from callboard.runs.store import Runs

KEYS = Keys()

CANARY_EXCEPTION = "canary-exception"
CANARY_PASSWORD = "canary-password-5309"
QUEUE = "callboard"

Eventually = Callable[..., None]


@pytest.fixture(scope="module")
def open_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose Flower answers its API to everybody."""
    variables = {
        "CALLBOARD_ACTIONS": "app",
        "PYTHONPATH": str(Path(__file__).parent),
        "FLOWER_UNAUTHENTICATED_API": "true",
    }
    with started(tmp_path_factory.mktemp("open"), "--workers", "2", **variables) as stack:
        stack.wait_ready()
        yield stack


@pytest.fixture
def broker(open_stack: Stack) -> Iterator[redis.Redis]:
    """The attacker's connection."""
    with redis.Redis.from_url(open_stack.announced["environment"]["REDIS_URL"]) as client:
        yield client


def dump(client: redis.Redis) -> str:
    """Every key of every type."""
    readers: dict[bytes, Callable[[bytes], Any]] = {
        b"string": client.get,
        b"hash": client.hgetall,
        b"list": lambda key: client.lrange(key, 0, -1),
        b"set": client.smembers,
        b"zset": lambda key: client.zrange(key, 0, -1),
        b"stream": client.xrange,
    }
    return repr([(key, readers[client.type(key)](key)) for key in client.scan_iter()])


class Listener:
    """All that is published meanwhile."""

    def __init__(self, url: str) -> None:
        self.heard: list[Any] = []
        self._client = redis.Redis.from_url(url)
        self._channel = self._client.pubsub()
        self._channel.psubscribe("*")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._listen)

    def _listen(self) -> None:
        while not self._ended.is_set():
            told = self._channel.get_message(timeout=0.1)
            if told:
                self.heard.append(told)

    def __enter__(self) -> Listener:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._channel.close()
        self._client.close()


def test_nothing_secret_shows_anywhere(
    open_stack: Stack, broker: redis.Redis, eventually: Eventually
) -> None:
    token = open_stack.token("alice", canary="canary-claim-4711")
    headers = {"Authorization": f"Bearer {token}"}

    def call(action: str, params: Any, **more: str) -> httpx.Response:
        url = f"{open_stack.url}/api/actions/{action}"
        return httpx.post(url, json=params, headers={**headers, **more}, timeout=60)

    flower = httpx.Client(base_url=open_stack.announced["flower_url"], timeout=60)
    url = open_stack.announced["environment"]["REDIS_URL"]
    with Listener(url) as listener, flower:
        login = call("login", {"user": "ada", "password": CANARY_PASSWORD})
        assert login.json() == {"success": True, "data": {"length": len(CANARY_PASSWORD)}}
        call("login", {"user": 7, "password": CANARY_PASSWORD})
        assert call("poison", {"deed": "exception"}).status_code == 500
        assert call("poison", {"deed": "kill", "once": True}).status_code == 200
        assert call("flaky", {"at": 99}).status_code == 500
        call("slow", {"seconds": 2}, Prefer="wait=0")
        run_id = login.headers["Run-Id"]
        eventually(lambda: run_id in flower.get("/api/tasks").text)
        seen = {
            "redis": dump(broker) + repr(listener.heard),
            "flower": "".join(
                flower.get(path).text
                for path in ("/tasks", f"/task/{run_id}", "/api/tasks", f"/api/task/info/{run_id}",
                             "/workers", "/api/workers", "/metrics", "/broker")
            ),
            "metrics": httpx.get(f"{open_stack.url}/metrics", timeout=60).text,
            "run": httpx.get(
                f"{open_stack.url}/api/runs/{run_id}", headers=headers, timeout=60
            ).text,
            "processes": repr(open_stack.descendants()),
        }  # fmt: skip
    with open_stack.database() as database:
        seen["database"] = repr(
            [list(database[name].find()) for name in database.list_collection_names()]
        )
    folder = open_stack.data_dir / "log"
    eventually(lambda: CANARY_EXCEPTION in (folder / "worker.log").read_text())
    logs = {path.name: path.read_text() for path in folder.iterdir()}

    signature = token.rpartition(".")[2]
    for name, text in {**seen, **logs}.items():
        for secret in (token, signature, CANARY_PASSWORD, "canary-claim"):
            assert secret not in text, f"{secret} in {name}"
        if name != "worker.log":
            assert CANARY_EXCEPTION not in text, name
    assert "password: ***" in seen["flower"]


def forged(task: str, run_id: str, tag: str | None = None, **headers: Any) -> dict[str, Any]:
    wakeup = message.Wakeup(task, run_id, "{}")
    fields = message.headers(wakeup, tag or "0" * 64)
    if tag is None:
        del fields[message.SIGNATURE_HEADER]
    envelope: dict[str, Any] = json.loads(message.write(QUEUE, wakeup, ""))
    return {**envelope, "headers": {**fields, **headers}}


def body(*args: Any, **embed: Any) -> str:
    return base64.b64encode(json.dumps([list(args), {}, embed]).encode()).decode()


FORGERIES: dict[str, Callable[[str], dict[str, Any]]] = {
    "unsigned": lambda run_id: forged("actions.slow", run_id),
    "wrongly signed": lambda run_id: forged("actions.slow", run_id, "f" * 64),
    "another type of tag": lambda run_id: forged("actions.slow", run_id, callboard=[1]),
    "of another action": lambda run_id: forged("actions.echo", run_id),
    "celery.map": lambda run_id: {
        **forged("celery.map", run_id),
        "body": body({"task": "actions.slow"}, [[]]),
    },
    "celery.starmap": lambda run_id: forged("celery.starmap", run_id),
    "celery.chord": lambda run_id: forged("celery.chord", run_id),
    "celery.backend_cleanup": lambda run_id: forged("celery.backend_cleanup", run_id),
    "with a chord": lambda run_id: {
        **forged("actions.slow", run_id),
        "body": body(chord={"task": "actions.slow"}),
    },
    "with arguments": lambda run_id: {**forged("actions.slow", run_id), "body": body(1, 2)},
    "with a time limit": lambda run_id: forged("actions.slow", run_id, timelimit=[0.001, 0.001]),
    "pickled": lambda run_id: {
        **forged("actions.slow", run_id),
        "content-type": "application/x-python-serialize",
        "body": base64.b64encode(b"cos\nsystem\n(S'true'\ntR.").decode(),
    },
    "of an unknown action": lambda run_id: forged("actions.nothing", run_id),
}


@pytest.mark.parametrize("kind", FORGERIES)
def test_a_forged_message_runs_nothing_and_touches_no_run(
    open_stack: Stack, broker: redis.Redis, eventually: Eventually, kind: str
) -> None:
    ended = open_stack.call("echo").headers["Run-Id"]
    record = f"callboard:run:{ended}"
    eventually(lambda: not broker.hexists(record, "message"))  # the history has it: it rests
    before = broker.hgetall(record)
    refused = int(broker.hget(KEYS.counters, "refused") or 0)
    for run_id in (ended, str(uuid4())):
        broker.lpush(QUEUE, json.dumps(FORGERIES[kind](run_id)))
    eventually(lambda: broker.llen(QUEUE) == 0)
    assert open_stack.call("echo").status_code == 200
    assert broker.hgetall(record) == before
    eventually(lambda: int(broker.hget(KEYS.counters, "refused") or 0) >= refused + 2)


@contextmanager
def busy_worker(stack: Stack, folder: Path) -> Iterator[None]:
    """Meanwhile what is called waits in its queue: both children have a run in hand."""
    gate = folder / "gate"
    runs = [stack.call("held", {"until": str(gate)}, Prefer="wait=0") for _ in range(2)]
    try:
        for run in runs:
            stack.wait_for_status(run.json()["runId"], "running")
        yield
    finally:
        gate.touch()


def test_a_replayed_message_has_no_second_effect(
    open_stack: Stack, broker: redis.Redis, eventually: Eventually, tmp_path: Path
) -> None:
    before = open_stack.call("count", {"collection": "slow"}).json()["data"]
    with busy_worker(open_stack, tmp_path):
        run_id = open_stack.call("slow", {"seconds": 0.1}, Prefer="wait=0").json()["runId"]
        recorded = broker.hget(f"callboard:run:{run_id}", "message")
    assert recorded
    assert finished(open_stack, run_id)["success"] is True
    hostile = json.loads(recorded)
    hostile["headers"] |= {"timelimit": [0.001, 0.001], "retries": 99, "expires": "2000-01-01"}
    for text in (recorded, recorded, json.dumps(hostile)):
        broker.lpush(QUEUE, text)
    eventually(lambda: broker.llen(QUEUE) == 0)
    assert open_stack.call("count", {"collection": "slow"}).json()["data"] == before + 1


def test_a_signed_message_takes_nothing_from_its_other_headers(
    open_stack: Stack, broker: redis.Redis, tmp_path: Path
) -> None:
    """Who writes the queue can alter a waiting message: its run is run as it was asked for."""
    with busy_worker(open_stack, tmp_path):
        run_id = open_stack.call("slow", {"seconds": 0.2}, Prefer="wait=0").json()["runId"]
        [text] = [text for text in broker.lrange(QUEUE, 0, -1) if run_id in text.decode()]
        hostile = json.loads(text)
        hostile["headers"] |= {"timelimit": [0.001, 0.001], "expires": "2000-01-01T00:00:00"}
        assert broker.lrem(QUEUE, 0, text) == 1
        broker.lpush(QUEUE, json.dumps(hostile))
    assert finished(open_stack, run_id)["success"] is True


def test_a_seal_moved_to_another_run_ends_that_run_and_leaks_nothing(
    open_stack: Stack, broker: redis.Redis, tmp_path: Path
) -> None:
    with busy_worker(open_stack, tmp_path):
        of_victim = open_stack.call("echo", {"of": "the victim"}, Prefer="wait=0")
        mine = open_stack.call("echo", Prefer="wait=0", as_user="mallory").json()["runId"]
        stolen = broker.hget(f"callboard:run:{of_victim.json()['runId']}", "seal")
        assert stolen
        broker.hset(f"callboard:run:{mine}", "seal", stolen)
    token = {"Authorization": f"Bearer {open_stack.token('mallory')}"}
    response = httpx.get(f"{open_stack.url}/api/runs/{mine}?wait=60", headers=token, timeout=90)
    assert "the victim" not in response.text
    assert open_stack.call("echo").status_code == 200


def test_an_idempotency_key_that_was_redirected_tells_nobody_elses_result(
    open_stack: Stack, broker: redis.Redis
) -> None:
    theirs = open_stack.call("echo", as_user="bob", **{"Idempotency-Key": "theirs"})
    before = set(broker.keys("callboard:idempotency:*"))
    open_stack.call("echo", as_user="mallory", **{"Idempotency-Key": "mine"})
    (mine,) = set(broker.keys("callboard:idempotency:*")) - before
    _, digest = broker.get(mine).split()  # type: ignore[union-attr]
    broker.set(mine, theirs.headers["Run-Id"].encode() + b" " + digest)
    told = open_stack.call("echo", as_user="mallory", **{"Idempotency-Key": "mine"})
    assert told.status_code == 404
    assert "bob" not in told.text


def test_an_expired_call_ends_as_such(open_stack: Stack, broker: redis.Redis) -> None:
    environment = open_stack.announced["environment"]
    runs = Runs(broker, Sealer((environment["SECRET_KEY"],)), KEYS)
    action = discover("app").get("echo")
    call = Call(caller="alice", expires=1.0)
    run_id = runs.accept(str(uuid4()), action, call, max_queue=9999, result_ttl=60).run_id
    assert finished(open_stack, run_id)["error"] == "Expired"


@pytest.mark.parametrize("path", ["apply", "async-apply", "send-task"])
def test_flower_starts_nothing(open_stack: Stack, path: str) -> None:
    url = f"{open_stack.announced['flower_url']}/api/task/{path}/actions.echo"
    response = httpx.post(url, json={"args": []}, timeout=60)
    assert response.status_code in (401, 403, 405)


def test_a_worker_kill_leaves_no_secret_behind(open_stack: Stack, broker: redis.Redis) -> None:
    """What a killed worker had in hand is as sealed as before."""
    open_stack.call("login", {"user": "a", "password": CANARY_PASSWORD})
    children = [pid for pid, line in open_stack.descendants().items() if "-A worker worker" in line]
    os.kill(children[-1], signal.SIGKILL)
    assert open_stack.call("login", {"user": "a", "password": CANARY_PASSWORD}).status_code == 200
    assert CANARY_PASSWORD not in dump(broker)


def payload(claims: str) -> dict[str, Any]:
    """A request whose token, well signed, has this payload."""
    return {"token": claims}


def sent(body: str | bytes, action: str = "echo", **headers: str) -> dict[str, Any]:
    """A request of an honest token."""
    return {"content": body, "action": action, "headers": headers}


ATTACKS: dict[str, tuple[dict[str, Any], int]] = {
    "a plain token": (payload('{"sub":"alice","exp":9999999999}'), 200),
    "exp as text": (payload('{"sub":"alice","exp":"9999999999"}'), 401),
    "sub with half a surrogate": (payload(r'{"sub":"\ud800","exp":9999999999}'), 401),
    "sub twice": (payload('{"sub":"alice","sub":"owner","exp":9999999999}'), 401),
    "a long Prefer": (sent("{}", Prefer="a" * 8000), 200),
    "a long Prefer, spaced": (sent("{}", Prefer="wait=" + " " * 7980 + "a"), 400),
    "nested 950 times": (sent('{"a":' * 950 + "1" + "}" * 950), 400),
    "nested 65 times": (sent('{"a":' * 65 + "1" + "}" * 65), 400),
    "1e400": (sent('{"x": 1e400}'), 400),
    "half a surrogate": (sent(r'{"x": "\ud800"}'), 400),
    "no UTF-8": (sent(b'{"x": "\xff"}'), 400),
    "wrong items without end": (
        sent(json.dumps({"event": "x", "tickets": 1, "guests": [7] * 300_000}), "orderTickets"),
        422,
    ),
}


@pytest.mark.parametrize("kind", ATTACKS)
def test_what_is_sent_to_the_api_gets_an_envelope_and_harms_nobody(
    open_stack: Stack, kind: str
) -> None:
    request, status = ATTACKS[kind]
    token = open_stack.token("mallory")
    if "token" in request:
        secret = open_stack.announced["environment"]["JWT_SECRET"]
        token = jwt.PyJWS().encode(request["token"].encode(), secret, "HS256")
    response = httpx.post(
        f"{open_stack.url}/api/actions/{request.get('action', 'echo')}",
        content=request.get("content", "{}"),
        headers={
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
            **request.get("headers", {}),
        },
        timeout=60,
    )
    answered = response.json()
    assert (response.status_code, answered["success"]) == (status, status == 200)
    assert status == 200 or answered["error"]
    assert len(response.content) <= 64 * 1024
    assert len(answered.get("issues", [])) <= 100
    begun = time.monotonic()
    assert httpx.get(f"{open_stack.url}/readyz", timeout=60).status_code == 200
    assert open_stack.call("echo").json()["success"] is True
    assert time.monotonic() - begun < 20


def finished(stack: Stack, run_id: str) -> dict[str, Any]:
    """The result of the run, once it has one."""
    token = {"Authorization": f"Bearer {stack.token('owner')}"}
    response = httpx.get(f"{stack.url}/api/runs/{run_id}?wait=60", headers=token, timeout=90)
    result: dict[str, Any] = response.json()["data"]["result"]
    return result
