"""The spans of a call: from the request to the response, and one around the enqueuing.

Needs the extra ``tracing``; imported only where `callboard.tracing.asked_for` says so.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from flask import Flask, Response, g, request
from opentelemetry.trace import SpanKind

from callboard.runs.commands import ScriptArguments
from callboard.runs.seal import Call
from callboard.runs.store import Runs
from callboard.sdk.action import Action
from callboard.tracing.tracer import failed, get_tracer, parent_of, traceparent

from ..services import current_services

__all__ = ["TracedRuns", "install"]

_CALL = "calls.call"  # the endpoint of the call path
_tracer = get_tracer("callboard-api")


def install(app: Flask) -> None:
    """Make a span of each call; it goes on with the caller's trace, if the request has one."""
    app.before_request(_start)
    app.after_request(_note)
    app.teardown_request(_end)


def _start() -> None:
    if request.endpoint != _CALL or request.method != "POST":  # no preflight either
        return
    action = (request.view_args or {}).get("name", "")
    facts = {"http.request.method": "POST", "http.route": "/api/actions/<name>"}
    if action in current_services().registry.public:  # any other is a client's own text
        facts["callboard.action"] = action
    name = f"POST /api/actions/{facts.get('callboard.action', '<name>')}"
    parent = parent_of(request.headers.get("traceparent"))
    g.tracing = ExitStack()
    g.span = g.tracing.enter_context(_tracer.span(name, SpanKind.SERVER, facts, parent))


def _note(response: Response) -> Response:
    if "span" in g:
        g.span.set_attribute("http.response.status_code", response.status_code)
        if run_id := response.headers.get("Run-Id"):
            g.span.set_attribute("callboard.run_id", run_id)
        if response.status_code >= 500:
            failed(g.span, str(response.status_code))
    return response


def _end(_: BaseException | None) -> None:
    if "tracing" in g:
        g.pop("tracing").close()


class TracedRuns(Runs):
    """Run records whose calls carry the trace that they belong to, under the seal."""

    def acceptance(
        self, run_id: str, action: Action, call: Call, **options: Any
    ) -> ScriptArguments:
        """As `Runs.acceptance`, with a span around it."""
        facts = {"callboard.action": action.name, "callboard.run_id": run_id}
        with _tracer.span(f"enqueue {action.name}", SpanKind.PRODUCER, facts):
            traced = replace(call, trace=traceparent())
            return super().acceptance(run_id, action, traced, **options)
