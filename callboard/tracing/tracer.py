"""The tracer: makes the spans of one kind of process. Needs the extra ``tracing``.

A span holds what its maker passes and no more: never a token, a param, a record or the text of
an exception. Only ``traceparent`` is read and written (W3C Trace Context): ``tracestate`` and
``baggage`` are text of the client's choice, which nobody here needs.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache

import pymongo.monitoring
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from callboard.tracing.commands import CommandSpans
from callboard.tracing.export import build_provider, close_provider

__all__ = ["Tracer", "failed", "get_tracer", "parent_of", "traceparent"]

MAX_LENGTH = 512  # characters of a ``traceparent``; that of version 00 has 55

_w3c = TraceContextTextMapPropagator()


class Tracer:
    """Starts spans; what exports them starts on first use, so that each forked process has its
    own."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._lock = threading.Lock()
        self._providers: dict[int, TracerProvider] = {}  # by process id

    @contextmanager
    def span(
        self,
        name: str,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Mapping[str, str | int | float] | None = None,
        parent: Context | None = None,
        harmless: type[Exception] | tuple[type[BaseException], ...] = (),
    ) -> Iterator[Span]:
        """A span around the block; an error that the block raises leaves only its class on it.

        ``parent``: from `parent_of`; None: the span that is current. ``harmless``: what the
        block may raise without an error.
        """
        with self.tracer().start_as_current_span(
            name, parent, kind, attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield span
            except harmless:
                raise
            except BaseException as error:
                failed(span, type(error).__name__)
                raise

    def tracer(self) -> trace.Tracer:
        """OpenTelemetry's own."""
        return self._provider().get_tracer("callboard")

    def close(self) -> None:
        """Send what this process has gathered, for a moment at most."""
        provider = self._providers.pop(os.getpid(), None)
        if provider is not None:
            close_provider(provider)

    def _provider(self) -> TracerProvider:
        process = os.getpid()
        if process not in self._providers:
            with self._lock:
                if process not in self._providers:
                    self._providers[process] = build_provider(self._service, self.close)
        return self._providers[process]


@cache
def get_tracer(service: str) -> Tracer:
    """The tracer of this application; MongoDB clients that open from now on make spans."""
    tracer = Tracer(service)
    pymongo.monitoring.register(CommandSpans(tracer.tracer))
    return tracer


def failed(span: Span, why: str) -> None:
    """Mark a span as an error. ``why``: a class or a status, never a text."""
    span.set_status(StatusCode.ERROR)
    span.set_attribute("error.type", why)


def parent_of(traceparent: str | None) -> Context:
    """What a ``traceparent`` says; if it is none, or invalid, a context that starts a trace."""
    if traceparent is None or len(traceparent) > MAX_LENGTH:
        return Context()
    return _w3c.extract({"traceparent": traceparent}, Context())


def traceparent() -> str:
    """That of the current span, which there must be."""
    carrier: dict[str, str] = {}
    _w3c.inject(carrier)
    return carrier["traceparent"]
