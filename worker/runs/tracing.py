"""The spans of a run: the run, its handler, its requests to upstreams. (MongoDB's are made by
`callboard.tracing.commands`.)

Needs the extra ``tracing``; imported only where `callboard.tracing.asked_for` says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

import httpx
from celery import signals
from opentelemetry.trace import SpanKind

from callboard.runs.seal import CALL_LIFETIME, Call
from callboard.sdk.results import StopHandler
from callboard.tracing.tracer import failed, get_tracer, parent_of, traceparent

from .attempt import Parked

if TYPE_CHECKING:
    from callboard.runs.outcome import Outcome
    from callboard.sdk.action import Action

    from .attempt import Attempt

__all__ = ["RunTracing"]

_METHODS = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"}  # others: a handler's text


class RunTracing:
    """Wraps the steps of a run, each in its span."""

    def __init__(self) -> None:
        self._tracer = get_tracer("callboard-worker")
        signals.worker_process_shutdown.connect(lambda **_: self._tracer.close(), weak=False)

    @contextmanager
    def run(self, attempt: Attempt) -> Iterator[Callable[[Outcome], None]]:
        """One attempt, below the call that it comes from; a trace of its own if there is none.

        Yields what is to be told the outcome.
        """
        with self._tracer.span(
            f"run {attempt.action.name}",
            SpanKind.CONSUMER,
            _facts(attempt),
            parent_of(attempt.call.trace),
            harmless=Exception,  # a retry
        ) as span:

            def note(outcome: Outcome) -> None:
                span.set_attribute("callboard.status", outcome.status)
                if outcome.http_status >= 500:
                    failed(span, str(outcome.http_status))

            yield note

    def handler(self, action: Action) -> AbstractContextManager[object]:
        """`Action.run`, and what it has returned, awaited."""
        return self._tracer.span(f"handler {action.name}", harmless=(StopHandler, Parked))

    @contextmanager
    def request(self, request: httpx.Request) -> Iterator[Callable[[httpx.Response], None]]:
        """A request and its redirects; the upstream is told of the trace.

        Yields what is to be told the response.
        """
        method = request.method if request.method in _METHODS else "_OTHER"
        facts = {"http.request.method": method, "server.address": request.url.host}
        with self._tracer.span(method, SpanKind.CLIENT, facts) as span:
            request.headers["traceparent"] = traceparent()

            def note(response: httpx.Response) -> None:
                span.set_attribute("http.response.status_code", response.status_code)
                if response.is_error:
                    failed(span, str(response.status_code))

            yield note


def _facts(attempt: Attempt) -> dict[str, str | int | float]:
    return {
        "callboard.action": attempt.action.name,
        "callboard.run_id": attempt.run_id,
        "callboard.attempt": attempt.claim.attempt,
        "callboard.status": "queued",  # again, unless it ends
        "callboard.since_enqueued": _age(attempt.call),
    }


def _age(call: Call) -> float:
    """Seconds since the call was made, by the clocks of the two machines."""
    return round(max(time.time() - (call.expires - CALL_LIFETIME), 0.0), 6)
