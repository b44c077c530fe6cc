"""`callboard.enqueue`: runs for programs of the application's own, as the API writes them."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis
from ended_runs import ACTIONS, Strict
from flask.testing import FlaskClient

import callboard
from callboard import ActionContext, ActionResult, action, ok
from callboard.errors import (
    BadRequest,
    BrokerUnavailable,
    Forbidden,
    InvalidParams,
    KeyReused,
    QueueFull,
    UnknownAction,
)
from callboard.producer import Producer
from callboard.registry import Registry
from callboard.runs.store import Runs
from callboard.settings import Settings


@action(owner_only=True)
def close_books(ctx: ActionContext) -> ActionResult:
    return ok()


REGISTRY = Registry(actions={each.name: each for each in (*ACTIONS, close_books)})
APPLICATION = """
from pydantic import BaseModel
from callboard import action, ok

class Greeting(BaseModel):
    name: str

@action
def say_hello(ctx, params: Greeting):
    return ok()
"""


@pytest.fixture
def make_producer(variables: dict[str, str]) -> Iterator[Callable[..., Producer]]:
    """Builds the producer of a program: ``make_producer(CALLBOARD_MAX_QUEUE=1)``."""
    with ExitStack() as stack:

        def make(**changes: Any) -> Producer:
            producer = Producer(Settings(**{**variables, **changes}), REGISTRY)
            stack.callback(producer.close)
            return producer

        yield make


@pytest.fixture
def producer(make_producer: Callable[..., Producer]) -> Producer:
    return make_producer()


@pytest.fixture
def run_script(variables: dict[str, str], tmp_path: Path) -> Callable[..., Any]:
    """Run a script beside an actions package; what it prints, or its last line on stderr."""
    (tmp_path / "actions").mkdir()
    (tmp_path / "actions" / "greetings.py").write_text(APPLICATION)

    def run(text: str, environment: dict[str, str] = variables) -> Any:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", textwrap.dedent(text)],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        return done.stderr if done.returncode else json.loads(done.stdout)

    return run


def test_the_run_is_written_as_a_call_over_http_is(
    producer: Producer,
    api: Callable[..., FlaskClient],
    make_token: Callable[..., str],
    runs: Runs,
    redis_client: redis.Redis,
) -> None:
    mine = producer.enqueue("strict", {"name": "Ada"}, caller="alice", claims={"role": "admin"})
    headers = {"Authorization": f"Bearer {make_token()}", "Prefer": "respond-async"}
    answer = api().post("/api/actions/strict", json={"name": "Ada"}, headers=headers)
    theirs = answer.json["data"]["runId"]
    fields = [set(redis_client.hkeys(f"callboard:run:{run_id}")) for run_id in (mine, theirs)]
    assert fields[0] | {b"reply"} == fields[1]  # nobody waits
    record = runs.read(mine)
    assert (record.status, record.caller, record.call.jwt) == ("queued", "alice", None)
    assert record.call.params == {"name": "Ada"}
    assert record.call.claims == {"role": "admin", "sub": "alice"}
    queued = [json.loads(text) for text in redis_client.lrange("callboard", 0, -1)]
    sent = {message["headers"]["id"]: message["headers"] for message in queued}
    assert set(sent[mine]) == set(sent[theirs])
    assert sent[mine]["kwargsrepr"] == sent[theirs]["kwargsrepr"]


def test_an_internal_action_is_started_by_programs_alone(
    producer: Producer, api: Callable[..., FlaskClient], make_token: Callable[..., str], runs: Runs
) -> None:
    assert runs.read(producer.enqueue("hidden", {}, caller=None)).action == "hidden"
    with_key = producer.enqueue("hidden", {}, caller="alice", key="once")
    client = api()
    for subject in ("alice", "owner"):
        headers = {"Authorization": f"Bearer {make_token(sub=subject)}", "Idempotency-Key": "once"}
        answers = [
            client.post(f"/api/actions/{name}", json={}, headers=headers)
            for name in ("hidden", "hiddem")
        ]
        assert [answer.status_code for answer in answers] == [404, 404]
        told = [answer.json["error"] for answer in answers]
        assert told == ["Unknown action 'hidden'.", "Unknown action 'hiddem'."]
        assert with_key not in str([answer.headers for answer in answers])
    assert client.post("/api/actions/hidden", json={}).status_code == 401


def test_params_are_a_mapping_a_model_or_nothing(producer: Producer, runs: Runs) -> None:
    run_id = producer.enqueue("strict", Strict(name="Ada"), caller="alice")
    assert runs.read(run_id).call.params == {"name": "Ada"}
    at = datetime(2026, 1, 2, tzinfo=UTC)
    run_id = producer.enqueue("work", {"at": at, "ids": {7}}, caller="alice")
    assert runs.read(run_id).call.params == {"at": "2026-01-02T00:00:00Z", "ids": [7]}
    run_id = producer.enqueue("open", None, caller=None)
    call = runs.read(run_id).call
    assert (call.caller, call.params, call.claims) == (None, {}, {})


@pytest.mark.parametrize(
    ("arguments", "options", "error", "told"),
    [
        (("wrok", {}), {}, UnknownAction, "Did you mean 'work'"),
        (("wrok", {}), {"caller": None}, UnknownAction, "Did you mean 'work'"),
        (("work", {}), {"caller": None}, Forbidden, "pass caller="),
        (("closeBooks", {}), {}, Forbidden, "owner only"),
        (("strict", {}), {}, InvalidParams, "name: Field required"),
        (("work", [1]), {}, BadRequest, "params must be an object, such as {}, not list"),
        (("work", {"a": float("nan")}), {}, BadRequest, "params are not JSON: a: nan"),
        (("work", {"a": object()}), {}, BadRequest, "a object is not JSON"),
        (("work", {"a": "x" * 1024 * 1024}), {}, BadRequest, "at most 1048576"),
        (("work", {}), {"claims": [1]}, BadRequest, "claims must be an object"),
        (("work", {}), {"caller": 7}, BadRequest, "caller must be a text, not int"),
        (("work", {}), {"caller": ""}, BadRequest, "1..255 characters"),
        (("work", {}), {"caller": "a\n"}, BadRequest, "control characters"),
        (("work", {}), {"caller": "\ud800"}, BadRequest, "surrogate"),
        (("work", {}), {"key": "k" * 256}, BadRequest, "key is not a text of 1..255"),
        (("work", {}), {"key": ""}, BadRequest, "key is not a text of 1..255"),
        (("open", {}), {"caller": None, "key": "k"}, BadRequest, "pass caller="),
    ],
)
def test_a_wrong_call_is_refused_and_nothing_is_written(
    producer: Producer, redis_client: redis.Redis, arguments, options, error, told
) -> None:
    with pytest.raises(error, match=told.replace("{}", r"\{\}")):
        producer.enqueue(*arguments, **{"caller": "alice", **options})
    assert redis_client.dbsize() == 0


def test_the_owner_runs_what_is_the_owners(producer: Producer, runs: Runs) -> None:
    assert runs.read(producer.enqueue("closeBooks", {}, caller="owner")).caller == "owner"


def test_a_key_is_one_run_also_with_the_api(
    producer: Producer, api: Callable[..., FlaskClient], make_token: Callable[..., str]
) -> None:
    first = producer.enqueue("strict", {"name": "Ada"}, caller="alice", key="order-1")
    assert producer.enqueue("strict", {"name": "Ada"}, caller="alice", key="order-1") == first
    assert producer.enqueue("strict", {"name": "Ada"}, caller="bob", key="order-1") != first
    with pytest.raises(KeyReused):
        producer.enqueue("strict", {"name": "Bob"}, caller="alice", key="order-1")
    headers = {"Idempotency-Key": "order-1", "Prefer": "respond-async"}
    headers["Authorization"] = f"Bearer {make_token()}"
    answer = api().post("/api/actions/strict", json={"name": "Ada"}, headers=headers)
    assert answer.json["data"]["runId"] == first


def test_the_run_is_in_the_namespace_of_the_settings(
    make_producer: Callable[..., Producer], redis_client: redis.Redis
) -> None:
    make_producer(CALLBOARD_NAMESPACE="shop").enqueue("work", {}, caller="alice", key="order-1")
    names = redis_client.keys()
    assert names
    assert all(name.startswith(b"shop:") for name in names)
    assert redis_client.llen("shop:celery:callboard") == 1


def test_a_full_queue_is_told(make_producer: Callable[..., Producer]) -> None:
    producer = make_producer(CALLBOARD_MAX_QUEUE=1)
    producer.enqueue("work", {}, caller="alice")
    with pytest.raises(QueueFull, match="1 runs"):
        producer.enqueue("work", {}, caller="alice")


def test_a_broker_that_is_away_is_told_in_time(make_producer: Callable[..., Producer]) -> None:
    started = time.monotonic()
    with pytest.raises(BrokerUnavailable):
        make_producer(REDIS_URL="redis://127.0.0.1:1/0").enqueue("work", {}, caller="alice")
    assert time.monotonic() - started < 10


def test_a_broker_that_says_nothing_is_told_in_time(make_producer: Callable[..., Producer]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        started = time.monotonic()
        with pytest.raises(BrokerUnavailable):
            make_producer(REDIS_URL=url).enqueue("work", {}, caller="alice")
    assert time.monotonic() - started < 10


def test_it_works_in_threads_and_in_forks_over_one_connection_each(
    run_script: Callable[..., Any], redis_client: redis.Redis
) -> None:
    """A process of one thread opens one connection; a child never uses its parent's."""
    told = run_script("""
        import json, os, threading
        import redis
        from concurrent.futures import ThreadPoolExecutor
        import callboard

        def enqueue(n):
            return callboard.enqueue("sayHello", {"name": str(n)}, caller="alice")

        def connections():
            with redis.Redis.from_url(os.environ["REDIS_URL"]) as client:
                return {c["id"] for c in client.client_list() if c["name"] == "callboard"}

        before = connections()
        ids = [enqueue(n) for n in range(5)]
        parents = connections()
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            ids = [enqueue(n) for n in range(5)]
            childs = connections() - before - parents
            os.write(writer, json.dumps([ids, len(childs)]).encode())
            os._exit(0)
        os.waitpid(child, 0)
        forked, childs = json.loads(os.read(reader, 65536))
        with ThreadPoolExecutor(8) as pool:
            ids += [*forked, *pool.map(enqueue, range(100))]
        print(json.dumps({
            "parent": len(parents - before), "child": childs, "runs": ids}))
    """)
    assert (told["parent"], told["child"]) == (1, 1)
    assert len(set(told["runs"])) == 110
    assert redis_client.llen("callboard") == 110


CALL = "import callboard; callboard.enqueue('sayHello', {'name': 'Ada'}, caller='alice')"


def test_missing_settings_are_named(run_script: Callable[..., Any]) -> None:
    told = run_script(CALL, {})
    assert "ConfigurationError" in told
    assert all(name in told for name in ("REDIS_URL", "MONGODB_URI", "SECRET_KEY", "JWT_SECRET"))


def test_an_actions_package_that_is_not_there_is_named(
    run_script: Callable[..., Any], variables: dict[str, str]
) -> None:
    told = run_script(CALL, {**variables, "CALLBOARD_ACTIONS": "elsewhere"})
    assert "ConfigurationError" in told
    assert "cannot import elsewhere" in told


def test_without_the_extra_the_import_works_and_the_call_names_it(
    run_script: Callable[..., Any],
) -> None:
    told = run_script(f"import sys; sys.modules['redis'] = None; {CALL}")
    assert "callboard.enqueue needs redis, which comes with the extra `server`" in told


def test_it_is_what_callboard_exports() -> None:
    assert callboard.enqueue.__module__ == "callboard.client.enqueue"
