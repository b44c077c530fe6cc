"""Logs: for people on a terminal, JSON lines otherwise. Never a token, never a parameter."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import structlog

__all__ = [
    "LineLogger",
    "configure_logging",
    "route_standard_logging",
    "standard_formatter",
]


def configure_logging(*first: Any, development: bool = False) -> None:
    """Set structlog up for this process; standard error is where logs go.

    ``first``: processors that see each line before all others.
    """
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
        *first,
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


def standard_formatter() -> logging.Formatter:
    """Has lines of the standard library's `logging` look like ours, after `configure_logging`."""
    *common, renderer = structlog.get_config()["processors"]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.add_logger_name, *common],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
    )


def route_standard_logging(
    level: int = logging.WARNING, handler: logging.Handler | None = None
) -> None:
    """Send what libraries log, and Python's warnings, where our lines go and in their form.

    For a process of our own, which no one else's code has set up.
    """
    handler = handler or logging.StreamHandler()
    handler.setFormatter(standard_formatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.captureWarnings(True)


class LineLogger:
    """One line per call: cheap to write, ``key=value`` in development and JSON otherwise."""

    def __init__(self, *, development: bool = False) -> None:
        self._format = _logfmt if development else _JSON.encode

    def info(self, event: str, **fields: str | float | None) -> None:
        """Write a line to standard error; what is None is left out."""
        now = datetime.now(UTC).isoformat().removesuffix("+00:00")
        line: dict[str, object] = {"timestamp": f"{now}Z", "event": event}
        for name, value in fields.items():
            if value is not None:
                line[name] = value
        sys.stderr.write(f"{self._format(line)}\n")


_JSON = json.JSONEncoder()
_PLAIN = re.compile(r"[!#-<>-\[\]-~]+")  # printable ASCII without blanks, quotes, = and backslash


def _logfmt(fields: Mapping[str, object]) -> str:
    return " ".join([f"{name}={_value(value)}" for name, value in fields.items()])


def _value(value: object) -> str:
    if not isinstance(value, str):
        return str(value)
    return value if _PLAIN.fullmatch(value) else _JSON.encode(value)
