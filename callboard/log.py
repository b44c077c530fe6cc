"""Logs: for people on a terminal, JSON lines otherwise. Never a token, never a parameter."""

from __future__ import annotations

import sys
from typing import Any

import structlog

__all__ = ["configure_logging", "line_logger"]


def configure_logging(*, development: bool = False) -> None:
    """Set structlog up for this process; standard error is where logs go."""
    readable = development or sys.stderr.isatty()
    renderer: Any = (
        structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            exception_formatter=structlog.dev.plain_traceback,  # rich ones show local variables
        )
        if readable
        else structlog.processors.JSONRenderer()
    )
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if not readable:
        processors.append(structlog.processors.format_exc_info)
    structlog.configure(
        processors=[*processors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger("INFO"),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )


def line_logger(*, development: bool = False) -> Any:
    """A logger for one line per call: cheap to write, ``key=value`` or JSON."""
    renderer: Any = (
        structlog.processors.LogfmtRenderer(key_order=["timestamp", "event"], drop_missing=True)
        if development
        else structlog.processors.JSONRenderer()
    )
    return structlog.wrap_logger(
        structlog.WriteLogger(sys.stderr),
        processors=[structlog.processors.TimeStamper(fmt="iso", utc=True), renderer],
        wrapper_class=structlog.make_filtering_bound_logger("INFO"),
        cache_logger_on_first_use=True,
    )
