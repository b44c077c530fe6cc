"""Tracing: what switches it on, what is wrong with it, and that it costs nothing while off."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest
from opentelemetry import trace

from callboard.runs.seal import Call
from callboard.settings import PRIVATE_VARIABLES
from callboard.tracing import asked_for, mistakes
from callboard.tracing.tracer import parent_of

RIGHT = {
    "REDIS_URL": "redis://127.0.0.1:1/0",
    "MONGODB_URI": "mongodb://127.0.0.1:1/never",
    "SECRET_KEY": "k" * 32,
    "JWT_SECRET": "j" * 32,
    "OWNER_USER_ID": "owner",
}
ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
WITHOUT_THE_EXTRA = "import sys; sys.modules['opentelemetry'] = None"
BOTH_APPLICATIONS = """
import json, sys, threading
from api import create_app
from worker.celery_app import create_app as create_worker
create_app(), create_worker()
loaded = [name for name, module in sys.modules.items()
          if module and name.startswith(("opentelemetry", "api", "callboard", "worker"))
          and ("opentelemetry" in name or "tracing" in name)]
print(json.dumps({"loaded": loaded, "threads": threading.active_count()}))
"""


def started(prelude: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """Build the API and the worker in a process of their own."""
    return subprocess.run(
        [sys.executable, "-c", f"{prelude}\n{BOTH_APPLICATIONS}"],
        env={**RIGHT, **variables}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def loaded(done: subprocess.CompletedProcess[str]) -> set[str]:
    """What it had imported of tracing; redis-py imports OpenTelemetry's API by itself."""
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout)["loaded"]) - {"callboard.tracing"}


@pytest.mark.parametrize(
    ("variables", "by"),
    [
        ({}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, None),
        (ENDPOINT, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "x"}, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, "OTEL_TRACES_EXPORTER"),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, None),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "TRUE"}, None),
        ({"OTEL_SERVICE_NAME": "x"}, None),
    ],
)
def test_opentelemetrys_own_variables_switch_it_on(variables, by):
    assert asked_for(variables) == by
    assert not list(mistakes(variables))


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER: 'zipkin'"),
        (
            {**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc'",
        ),
    ],
)
def test_what_the_extra_cannot_do_is_a_mistake(variables, told):
    [line] = mistakes(variables)
    assert told in line
    assert "allowed" in line


def test_without_the_extra_the_start_says_what_to_do():
    done = started(WITHOUT_THE_EXTRA, **ENDPOINT)
    assert done.returncode == 1
    told = done.stderr.splitlines()[-1]
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in told
    assert "pip install 'callboard[tracing]'" in told


def test_without_the_extra_everything_starts():
    assert loaded(started(WITHOUT_THE_EXTRA)) == set()


def test_off_nothing_that_makes_or_sends_spans_is_imported():
    names = loaded(started())
    assert not [name for name in names if name.startswith("opentelemetry.sdk.trace")]
    assert not [name for name in names if name.startswith("opentelemetry.exporter")]
    assert names.isdisjoint(
        {"callboard.tracing.tracer", "api.telemetry.tracing", "worker.runs.tracing"}
    )


def test_on_no_thread_starts_before_a_fork():
    done = started(**ENDPOINT)
    assert {"callboard.tracing.tracer", "api.telemetry.tracing", "worker.runs.tracing"} <= loaded(
        done
    )
    assert json.loads(done.stdout)["threads"] == 1


@pytest.mark.parametrize(
    "sent",
    [
        f"00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-00",
        f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like",
    ],
)
def test_a_valid_traceparent_is_the_parent(sent):
    parent = trace.get_current_span(parent_of(sent)).get_span_context()
    assert (f"{parent.trace_id:032x}", f"{parent.span_id:016x}") == (TRACE, SPAN)


@pytest.mark.parametrize(
    "sent",
    [
        None, "", "garbage", f"00-{TRACE}-{SPAN}", f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-01-more", f"00-{TRACE}-{SPAN}-0g", f"00-{TRACE}-{SPAN}-01" + "x" * 9999,
        f"00-{TRACE}-{SPAN}-01,00-{TRACE}-{SPAN}-01",  # two headers
    ],
)  # fmt: skip
def test_an_invalid_traceparent_starts_a_trace(sent):
    assert not trace.get_current_span(parent_of(sent)).get_span_context().is_valid


def test_a_call_carries_its_trace_and_nothing_while_there_is_none():
    traced = Call(caller=None, trace=f"00-{TRACE}-{SPAN}-01", expires=time.time())
    assert Call.from_json(traced.to_json()) == traced
    assert b"trace" not in Call(caller=None).to_json()


def test_the_key_of_a_collector_is_hidden_from_handlers():
    assert PRIVATE_VARIABLES.fullmatch("OTEL_EXPORTER_OTLP_HEADERS")
    assert PRIVATE_VARIABLES.fullmatch("OTEL_EXPORTER_OTLP_TRACES_HEADERS")
    assert not PRIVATE_VARIABLES.fullmatch("OTEL_SERVICE_NAME")
