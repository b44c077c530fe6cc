"""Tracing: whether OpenTelemetry's own variables ask for it. Imports nothing of OpenTelemetry.

Off unless an endpoint or the exporter ``otlp`` is named; then `callboard.tracing.tracer` makes
the spans. A run's trace goes through the queue inside its seal (`callboard.runs.seal.Call.trace`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec

__all__ = ["asked_for", "mistakes"]

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
EXPORTER = "OTEL_TRACES_EXPORTER"
PROTOCOL = "http/protobuf"  # the only one that the extra installs


def asked_for(variables: Mapping[str, str]) -> str | None:
    """The variable that switches tracing on; None while it is off."""
    exporter = variables.get(EXPORTER, "").strip()
    if variables.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or exporter == "none":
        return None
    asking = (*ENDPOINTS, EXPORTER)
    return next((name for name in asking if variables.get(name, "").strip()), None)


def mistakes(variables: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with the variables of tracing, a line each; nothing while it is off."""
    asking = asked_for(variables)
    if asking is None:
        return
    if not _installed():
        yield f"{asking} asks for traces: `pip install 'callboard[tracing]'`, or unset it"
    exporter = variables.get(EXPORTER, "").strip() or "otlp"
    if exporter != "otlp":
        yield f"{EXPORTER}: {exporter!r:.80} is not known; allowed: otlp, none"
    named = next((name for name in PROTOCOLS if variables.get(name, "").strip()), None)
    if named and variables[named].strip() != PROTOCOL:
        yield f"{named}: {variables[named]!r:.80} is not known; allowed: {PROTOCOL} (port 4318)"


def _installed() -> bool:
    try:
        return find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:
        return False
