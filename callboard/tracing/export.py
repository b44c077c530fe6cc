"""How spans leave a process: in batches, by a thread that nobody waits for.

A collector that is away costs the spans that do not fit into the queue, and two log lines: one
when it goes, one when it is back.
"""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Callable, Sequence

import structlog
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

__all__ = ["build_provider", "close_provider"]

CLOSE_SECONDS = 2.0  # for the last batch; a stop must not wait for a collector that is away

_CHATTY = ("opentelemetry.exporter", "opentelemetry.sdk._shared_internal")  # a line per batch
_log = structlog.get_logger("callboard.tracing")


def build_provider(service: str, close: Callable[[], None]) -> TracerProvider:
    """Start what exports the spans of this process, as the OTEL_* variables say.

    It is also made the one that ``opentelemetry.trace.get_tracer`` means, for the spans of the
    application's own. ``service``: its name, unless the variables give one. ``close`` is called
    when the process exits.
    """
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    provider = TracerProvider(resource=_resource(service), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(_LoggedOnce(OTLPSpanExporter())))
    trace.set_tracer_provider(provider)
    atexit.register(close)
    return provider


def close_provider(provider: TracerProvider) -> None:
    """Send the last batch; give up after `CLOSE_SECONDS`."""
    closing = threading.Thread(target=provider.shutdown, name="tracing", daemon=True)
    closing.start()
    closing.join(CLOSE_SECONDS)


def _resource(service: str) -> Resource:
    given = Resource.create()
    if str(given.attributes[SERVICE_NAME]).startswith("unknown_service"):
        return given.merge(Resource({SERVICE_NAME: service}))
    return given


class _LoggedOnce(SpanExporter):
    """Logs when the collector goes and when it comes back, not each batch."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._away = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Called by the batch thread."""
        result = self._exporter.export(spans)
        away = result is not SpanExportResult.SUCCESS
        if away != self._away:
            self._away = away
            if away:
                _log.warning("traces are dropped: the collector does not take them")
            else:
                _log.info("traces are sent again")
        return result

    def shutdown(self) -> None:
        """Called once, at the end."""
        self._exporter.shutdown()
