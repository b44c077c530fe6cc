"""A collector of traces: a real OTLP/HTTP server that keeps what it is sent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from flask import Flask, Response, request
from local_http import served
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

__all__ = ["Collector", "SentSpan", "collecting"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SentSpan:
    """A span as it was sent; ids in hex, times in nanoseconds since the epoch."""

    service: str
    name: str
    kind: int
    trace: str
    id: str
    parent: str
    start: int
    end: int
    error: bool
    message: str  # of the status
    events: int
    attributes: dict[str, Any]


@dataclass
class Collector:
    """What was sent so far."""

    url: str = ""
    bodies: list[bytes] = field(default_factory=list)
    spans: list[SentSpan] = field(default_factory=list)

    def of_run(self, run_id: str) -> list[SentSpan]:
        """All spans of the trace that the run belongs to, in the order of their starts."""
        traces = {s.trace for s in self.spans if s.attributes.get("callboard.run_id") == run_id}
        found = [span for span in self.spans if span.trace in traces]
        return sorted(found, key=lambda span: span.start)

    def app(self) -> Flask:
        """The server."""
        app = Flask("collector")

        @app.post("/v1/traces")
        def take() -> Response:
            self.bodies.append(request.get_data())
            self.spans += _spans(self.bodies[-1])
            return Response(b"", content_type="application/x-protobuf")

        return app


def _spans(body: bytes) -> Iterator[SentSpan]:
    for of_process in ExportTraceServiceRequest.FromString(body).resource_spans:
        service = _values(of_process.resource.attributes)["service.name"]
        for scope in of_process.scope_spans:
            for span in scope.spans:
                yield SentSpan(
                    service=service,
                    name=span.name,
                    kind=span.kind,
                    trace=span.trace_id.hex(),
                    id=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    start=span.start_time_unix_nano,
                    end=span.end_time_unix_nano,
                    error=span.status.code == span.status.STATUS_CODE_ERROR,
                    message=span.status.message,
                    events=len(span.events),
                    attributes=_values(span.attributes),
                )


def _values(attributes: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in attributes}


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that runs while the block does."""
    collector = Collector()
    with served(collector.app()) as collector.url:
        yield collector
