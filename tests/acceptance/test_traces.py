"""Tracing with the real processes: one trace, nothing secret in it, and no harm without a
collector."""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from collector import Collector, SentSpan, collecting
from flask import Flask, request
from local_http import served
from local_stack import STOP, Stack, started

from callboard.connections.keys import Keys
from callboard.registry import discover
from callboard.runs.seal import Call, Sealer
from callboard.runs.store import Runs

KEYS = Keys()

HERE = str(Path(__file__).parent)
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
OWNER_TOKEN, SECRET = "canary-owner-token", "canary-value-8191"
INTERNAL, SERVER, CLIENT, PRODUCER, CONSUMER = 1, 2, 3, 4, 5

Eventually = Callable[..., None]


class Upstream:
    """The headers of what was asked of it."""

    def __init__(self) -> None:
        self.headers: list[dict[str, str]] = []

    def app(self) -> Flask:
        app = Flask("upstream")

        @app.route("/<path:path>", methods=["GET", "POST"])
        def answer(path: str) -> Any:
            self.headers.append({k.lower(): v for k, v in request.headers.items()})
            return {"success": True, "data": {"heard": "you"}}

        return app


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
def upstream() -> Upstream:
    return Upstream()


@pytest.fixture(scope="module")
def traced(
    tmp_path_factory: pytest.TempPathFactory, collector: Collector, upstream: Upstream
) -> Iterator[Stack]:
    """A stack that sends its traces to `collector`."""
    with served(upstream.app()) as url:
        variables = {
            "CALLBOARD_ACTIONS": "app",
            "PYTHONPATH": HERE,
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_BSP_SCHEDULE_DELAY": "100",  # milliseconds
            "UPSTREAMS": f"platform={url}",
            "INTEGRATIONS_URL": url,
            "APP_OWNER_JWT": OWNER_TOKEN,
        }
        with started(tmp_path_factory.mktemp("traced"), **variables) as stack:
            stack.wait_ready()
            yield stack


@pytest.fixture
def trace_of(collector: Collector, eventually: Eventually) -> Callable[..., list[SentSpan]]:
    """All spans of a run's trace, once those with these names (as often as given) are there."""

    def wait(run_id: str, *names: str) -> list[SentSpan]:
        wanted = Counter(names)
        eventually(lambda: wanted <= Counter(span.name for span in collector.of_run(run_id)))
        return collector.of_run(run_id)

    return wait


def named(spans: list[SentSpan], name: str) -> SentSpan:
    """The first of this name."""
    return next(span for span in spans if span.name == name)


@pytest.mark.parametrize("action", ["reachOut", "reachOutAsync"])
def test_one_trace_leads_from_the_call_to_the_database_and_the_upstreams(
    traced: Stack, trace_of: Any, upstream: Upstream, action: str
) -> None:
    upstream.headers.clear()
    response = traced.call(action, {"secret": SECRET}, traceparent=TRACEPARENT)
    assert response.json()["success"], response.text
    run_id = response.headers["Run-Id"]
    spans = trace_of(run_id, f"POST /api/actions/{action}", f"run {action}", "GET", "POST")

    assert {span.trace for span in spans} == {TRACE}
    call, enqueue, run, handler = (
        named(spans, name)
        for name in (f"POST /api/actions/{action}", f"enqueue {action}", f"run {action}",
                     f"handler {action}")
    )  # fmt: skip
    assert [call.parent, enqueue.parent, run.parent, handler.parent] == [
        PARENT, call.id, enqueue.id, run.id,
    ]  # fmt: skip
    assert [call.kind, enqueue.kind, run.kind, handler.kind] == [
        SERVER, PRODUCER, CONSUMER, INTERNAL,
    ]  # fmt: skip
    assert (call.service, run.service) == ("callboard-api", "callboard-worker")
    assert call.start <= enqueue.start <= run.start <= handler.start < handler.end <= call.end
    assert not any(span.error for span in spans)

    inside = [span for span in spans if span.parent == handler.id]
    assert {span.kind for span in inside} == {CLIENT}
    assert {"find notes", "GET", "POST"} < {span.name for span in inside}
    assert any(span.attributes.get("db.collection.name") == "notes" for span in inside)
    outgoing = [span for span in inside if span.name in ("GET", "POST")]
    assert [headers["traceparent"] for headers in upstream.headers] == [
        f"00-{TRACE}-{span.id}-01" for span in outgoing
    ]


def test_a_span_says_which_run_and_how_it_ended_and_no_more(traced: Stack, trace_of: Any) -> None:
    run_id = traced.call("echo", {"secret": SECRET}).headers["Run-Id"]
    spans = trace_of(run_id, "POST /api/actions/echo", "run echo")
    assert named(spans, "POST /api/actions/echo").attributes == {
        "http.request.method": "POST",
        "http.route": "/api/actions/<name>",
        "http.response.status_code": 200,
        "callboard.action": "echo",
        "callboard.run_id": run_id,
    }
    facts = named(spans, "run echo").attributes
    assert 0 <= facts.pop("callboard.since_enqueued") < 60
    assert facts == {
        "callboard.action": "echo",
        "callboard.run_id": run_id,
        "callboard.attempt": 1,
        "callboard.status": "succeeded",
    }


def test_nothing_secret_is_in_what_is_sent(
    traced: Stack, trace_of: Any, collector: Collector
) -> None:
    token = traced.token("alice-the-caller", claim="canary-claim")
    for name in ("reachOut", "reachOutAsync", "blowUp", "clash", "giveIn"):
        headers = {"Authorization": f"Bearer {token}", "tracestate": "vendor=canary-state"}
        headers["baggage"] = "canary-baggage=1"
        response = httpx.post(
            f"{traced.url}/api/actions/{name}?canary-query=1", json={"secret": SECRET},
            headers=headers, timeout=60,
        )  # fmt: skip
        trace_of(response.headers["Run-Id"], f"POST /api/actions/{name}", f"handler {name}")
    assert traced.call("canary-name").status_code == 404
    run_id = traced.call("echo").headers["Run-Id"]  # whose spans follow those of the refusal
    trace_of(run_id, "POST /api/actions/echo", "run echo")
    unsigned, signature = token.rsplit(".", 1)
    for secret in (unsigned, signature, "canary", "alice-the-caller"):
        assert not any(secret.encode() in body for body in collector.bodies), secret
    assert any(span.name == "POST /api/actions/<name>" for span in collector.spans)
    assert not any(span.message or span.events for span in collector.spans)


def test_each_attempt_is_a_span_and_an_error_leaves_its_class(traced: Stack, trace_of: Any) -> None:
    response = traced.call("blowUp", {"secret": SECRET})
    assert response.status_code == 500
    spans = trace_of(
        response.headers["Run-Id"], "POST /api/actions/blowUp", "run blowUp", "run blowUp"
    )
    runs = [span for span in spans if span.name == "run blowUp"]
    assert [run.attributes["callboard.attempt"] for run in runs] == [1, 2]
    assert [run.attributes["callboard.status"] for run in runs] == ["queued", "failed"]
    handlers = [span for span in spans if span.name == "handler blowUp"]
    assert [span.attributes["error.type"] for span in handlers] == ["Busy", "RuntimeError"]
    assert named(spans, "POST /api/actions/blowUp").attributes["error.type"] == "500"


def test_a_refusal_of_the_database_leaves_its_number(traced: Stack, trace_of: Any) -> None:
    run_id = traced.call("clash", {"secret": "twice"}).headers["Run-Id"]
    spans = trace_of(run_id, "POST /api/actions/clash", "handler clash")
    refused = [span for span in spans if span.name == "findAndModify clashing" and span.error]
    assert [span.attributes["db.response.status_code"] for span in refused] == ["11000"]


def test_a_failure_that_a_handler_returns_is_no_error(traced: Stack, trace_of: Any) -> None:
    run_id = traced.call("giveIn").headers["Run-Id"]
    spans = trace_of(run_id, "POST /api/actions/giveIn", "run giveIn", "handler giveIn")
    assert named(spans, "run giveIn").attributes["callboard.status"] == "failed"
    assert not any(span.error for span in spans)


def test_spans_of_the_handlers_own_belong_to_the_trace(traced: Stack, trace_of: Any) -> None:
    run_id = traced.call("ownSpan").headers["Run-Id"]
    spans = trace_of(run_id, "POST /api/actions/ownSpan", "counting sheep", "handler ownSpan")
    assert named(spans, "counting sheep").parent == named(spans, "handler ownSpan").id


@pytest.mark.parametrize(
    "sent", ["garbage", f"ff-{TRACE}-{PARENT}-01", f"00-{'0' * 32}-{PARENT}-01"]
)
def test_an_invalid_traceparent_is_ignored(traced: Stack, trace_of: Any, sent: str) -> None:
    response = traced.call("echo", traceparent=sent)
    assert response.status_code == 200
    spans = trace_of(response.headers["Run-Id"], "POST /api/actions/echo", "run echo")
    assert {span.trace for span in spans}.isdisjoint({TRACE, "0" * 32})
    assert named(spans, "POST /api/actions/echo").parent == ""


def test_a_caller_who_does_not_sample_leaves_no_span(
    traced: Stack, collector: Collector, trace_of: Any
) -> None:
    other = "a" * 32
    run_id = traced.call("echo", traceparent=f"00-{other}-{PARENT}-00").headers["Run-Id"]
    trace_of(traced.call("echo").headers["Run-Id"], "POST /api/actions/echo", "run echo")
    assert collector.of_run(run_id) == []


def test_a_run_that_no_call_asked_for_has_a_trace_of_its_own(traced: Stack, trace_of: Any) -> None:
    environment = traced.announced["environment"]
    run_id = "11111111-1111-4111-8111-111111111111"
    with redis.Redis.from_url(environment["REDIS_URL"]) as client:
        runs = Runs(client, Sealer((environment["SECRET_KEY"],)), KEYS)
        action = discover("app").actions["echo"]
        call = Call(caller="owner", scheduled=True)  # as `Publisher.publish` has it accepted
        runs.accept(run_id, action, call, max_queue=100, result_ttl=60)
    spans = trace_of(run_id, "run echo", "handler echo")
    assert named(spans, "run echo").parent == ""


def test_what_was_not_sent_yet_is_sent_at_a_stop(
    tmp_path: Path, collector: Collector, eventually: Eventually
) -> None:
    variables = {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_BSP_SCHEDULE_DELAY": "600000"}
    variables["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] = f"{collector.url}/v1/traces"
    with started(tmp_path, CALLBOARD_ACTIONS="app", PYTHONPATH=HERE, **variables) as stack:
        stack.wait_ready()
        run_id = stack.call("echo").headers["Run-Id"]
        assert collector.of_run(run_id) == []
        stack.stop()
    names = {span.name for span in collector.of_run(run_id)}
    assert {"POST /api/actions/echo", "enqueue echo", "run echo", "handler echo"} <= names


def test_a_collector_that_hangs_slows_no_call_and_no_stop(
    tmp_path: Path, eventually: Eventually
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, never answers
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "1",  # seconds
            "OTEL_BSP_SCHEDULE_DELAY": "50",  # milliseconds
        }
        flags = ("--workers", "2")
        application = {"CALLBOARD_ACTIONS": "app", "PYTHONPATH": HERE}
        with started(tmp_path, *flags, **application, **variables) as stack:
            stack.wait_ready()
            stack.call("echo")
            begun = time.monotonic()
            for _ in range(50):
                assert stack.call("echo").status_code == 200
            assert time.monotonic() - begun < 25  # half of one timeout of the exporter each
            eventually(lambda: "traces are dropped" in stack.printed)
            assert stack.stop() < STOP
            assert stack.printed.count("traces are dropped") <= 4  # one a process
            assert "opentelemetry" not in stack.printed
