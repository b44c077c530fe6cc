"""A span for each MongoDB command of a traced call or run: its name and collection, no more.

Not OpenTelemetry's own instrumentation of PyMongo: that one puts the server's message on a span
that failed, and the message of a duplicate key quotes the record.
"""

from __future__ import annotations

from collections.abc import Callable

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, StatusCode
from pymongo import monitoring

__all__ = ["CommandSpans"]


class CommandSpans(monitoring.CommandListener):
    """Follows the commands of every client of this process; ``tracer`` opens on first use."""

    def __init__(self, tracer: Callable[[], trace.Tracer]) -> None:
        self._tracer = tracer
        self._open: dict[int, Span] = {}  # by request id

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        """Called by PyMongo, in the thread that waits for the command."""
        if not trace.get_current_span().is_recording():
            return
        operation = event.command_name
        attributes = {"db.system.name": "mongodb", "db.operation.name": operation}
        collection = event.command.get("collection" if operation == "getMore" else operation)
        if isinstance(collection, str):
            attributes["db.collection.name"] = collection
        name = f"{operation} {attributes.get('db.collection.name', '')}".rstrip()
        span = self._tracer().start_span(name, kind=SpanKind.CLIENT, attributes=attributes)
        self._open[event.request_id] = span

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        """Called by PyMongo."""
        span = self._open.pop(event.request_id, None)
        if span is not None:
            span.end()

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """Called by PyMongo. The server's message stays out; its number may be told."""
        span = self._open.pop(event.request_id, None)
        if span is not None:
            span.set_status(StatusCode.ERROR)
            if isinstance(code := event.failure.get("code"), int):
                span.set_attribute("db.response.status_code", str(code))
            span.end()
