"""Logs: for people on a terminal, JSON lines otherwise. Never a token, never a parameter."""

from __future__ import annotations

import copy
import json
import logging
import re
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from io import StringIO
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor

from callboard.log.printed import error_stream
from callboard.log.stream import LineStream
from callboard.log.values import cut, plain, to_json

__all__ = [
    "LineLogger",
    "configure_logging",
    "route_standard_logging",
    "standard_formatter",
]


QUIET = {
    # they write URLs with their queries, cookies or records below the level of warnings
    **dict.fromkeys(("httpcore", "httpx", "pymongo", "redis"), logging.WARNING),
    **dict.fromkeys(("requests", "urllib3"), logging.WARNING),
    # Flower asks workers that may not be there yet, or no longer, and asks again by itself
    "flower.inspector": logging.ERROR,
}
"""The level of libraries whose lines are not wanted below it, whatever the level of the rest."""

LEVELS = ("debug", "info", "warning", "warn", "error", "exception", "critical", "fatal")


def configure_logging(
    *first: Any, development: bool = False, redact: Callable[[str], str] | None = None
) -> None:
    """Set structlog up for this process; standard error is where logs go.

    ``first``: processors that see each line before all others. ``redact``: takes secrets out of
    each line as it is written.
    """
    stream = error_stream()
    readable = development or stream.isatty()
    processors: list[Any] = [
        *first,
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if not readable:
        processors.append(structlog.processors.format_exc_info)
    last = _readable(stream) if readable else _json_line
    lines = LineStream(stream)
    structlog.configure(
        processors=[*processors, last if redact is None else _redacted(last, redact)],
        wrapper_class=_BoundLogger,
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=True,
    )


def _redacted(render: Processor, redact: Callable[[str], str]) -> Processor:
    """The last processor, and then no secrets."""

    def line(logger: Any, name: str, line: EventDict) -> str:
        return redact(str(render(logger, name, line)))

    return line


def _json_line(_: Any, __: str, line: EventDict) -> str:
    """The last processor: the line as JSON."""
    return to_json(line)


def _readable(stream: TextIO) -> Processor:
    """The last processor for people."""
    render = structlog.dev.ConsoleRenderer(
        colors=stream.isatty(),
        exception_formatter=_bounded_traceback,
    )

    def line(logger: Any, name: str, line: EventDict) -> Any:
        raised = {"exc_info": line.pop("exc_info")} if "exc_info" in line else {}
        event = line.get("event")
        shown = {**plain(line), **raised, "event": plain(event) if isinstance(event, str) else ""}
        if not isinstance(event, str):
            shown["event"] = to_json(event)
        return render(logger, name, shown)

    return line


def _bounded_traceback(stream: TextIO, exc_info: Any) -> None:
    """Plain, because rich ones show local variables; its beginning and its end."""
    made = StringIO()
    structlog.dev.plain_traceback(made, exc_info)
    stream.write(cut(made.getvalue()))


class _Interpolated(structlog.make_filtering_bound_logger("INFO")):  # type: ignore[misc]
    """A logger that fails nobody: what cannot be written as it was meant is written otherwise."""

    def _proxy_to_logger(self, method_name: str, event: Any = None, /, **fields: Any) -> Any:
        try:
            return super()._proxy_to_logger(method_name, event, **fields)
        except Exception as error:  # noqa: BLE001 - of a value, or of the stream
            with suppress(Exception):
                line = {"event": event, "level": method_name, "log_error": error}
                LineStream(error_stream()).line(to_json(line))


def _forgiving(level: str) -> Callable[..., Any]:
    """A level's method, which takes arguments that do not fit their text."""
    write = getattr(_Interpolated, level)

    def log(self: Any, event: Any = "", /, *args: Any, **fields: Any) -> Any:
        for taken in {"event", "method_name"} & fields.keys():
            fields[f"{taken}_"] = fields.pop(taken)
        return write(self, _interpolated(event, args), **fields)

    return log


_BoundLogger = type("BoundLogger", (_Interpolated,), {name: _forgiving(name) for name in LEVELS})


def _interpolated(event: Any, args: tuple[Any, ...]) -> Any:
    """``event % args``; both, one behind the other, where they do not fit."""
    try:
        one = args[0] if len(args) == 1 and isinstance(args[0], Mapping) and args[0] else args
        return event % one if args else event
    except Exception:  # noqa: BLE001 - whatever a __str__ raises
        return f"{event} {to_json(args)}"


class _Formatter(structlog.stdlib.ProcessorFormatter):
    """Has a line of the standard library's `logging` look like ours; it raises nothing."""

    def format(self, record: logging.LogRecord) -> str:
        if record.args or not isinstance(record.msg, (str, dict)):
            record = copy.copy(record)
            record.msg, record.args = _interpolated(record.msg, _arguments(record)), None
        try:
            return super().format(record)
        except Exception as error:  # noqa: BLE001 - of a value
            line = {"event": record.msg, "level": record.levelname.lower(), "log_error": error}
            return to_json(line)


def _arguments(record: logging.LogRecord) -> tuple[Any, ...]:
    """A record keeps a single mapping by itself."""
    args = record.args
    return args if isinstance(args, tuple) else (args,) if args else ()


def standard_formatter() -> logging.Formatter:
    """Has lines of the standard library's `logging` look like ours, after `configure_logging`."""
    *common, renderer = structlog.get_config()["processors"]
    return _Formatter(
        foreign_pre_chain=[structlog.stdlib.add_logger_name, *common],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
    )


def route_standard_logging(
    level: int = logging.WARNING, handler: logging.Handler | None = None
) -> None:
    """Send what libraries log, and Python's warnings, where our lines go and in their form; also
    what a thread, or an object that goes, raises.

    For a process of our own, which no one else's code has set up.
    """
    handler = handler or logging.StreamHandler(LineStream(error_stream()))
    handler.setFormatter(standard_formatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name, least in QUIET.items():
        logging.getLogger(name).setLevel(max(level, least))
    logging.captureWarnings(True)
    threading.excepthook = _thread_raised
    sys.unraisablehook = _unraisable


def _thread_raised(args: Any) -> None:
    if args.exc_type is not SystemExit:
        raised = (args.exc_type, args.exc_value, args.exc_traceback)
        name = args.thread.name if args.thread else None
        structlog.get_logger("callboard").error("a thread raised", thread=name, exc_info=raised)


def _unraisable(args: Any) -> None:
    raised = (args.exc_type, args.exc_value, args.exc_traceback)
    structlog.get_logger("callboard").error(
        args.err_msg or "raised, and nobody could be told", object=args.object, exc_info=raised
    )


class LineLogger:
    """One line per call, cheap to write, in the form of all others."""

    def __init__(self, *, development: bool = False) -> None:
        self._format: Callable[[Mapping[str, object]], str] = _logfmt if development else _encoded

    def info(self, event: str, **fields: str | float | None) -> None:
        """Write a line to standard error; what is None is left out."""
        now = datetime.now(UTC).isoformat().removesuffix("+00:00")
        line: dict[str, object] = {"timestamp": f"{now}Z", "event": event}
        for name, value in fields.items():
            if value is not None:
                line[name] = value
        error_stream().write(f"{self._format(line)}\n")


_JSON = json.JSONEncoder(allow_nan=False)


def _encoded(line: Mapping[str, object]) -> str:
    """JSON, at once where nothing is unusual."""
    try:
        text = _JSON.encode(line)
    except (ValueError, TypeError):
        return to_json(line)
    return to_json(line) if len(text) > 4_096 or "\\ud" in text else text


_PLAIN = re.compile(r"[!#-<>-\[\]-~]+")  # printable ASCII without blanks, quotes, = and backslash


def _logfmt(fields: Mapping[str, object]) -> str:
    """As structlog's renderer for people writes it."""
    rest = " ".join(
        [f"{n}={_value(v)}" for n, v in fields.items() if n not in ("timestamp", "event")]
    )
    return f"{fields['timestamp']} [info     ] {fields['event']:<30} {rest}"


def _value(value: object) -> str:
    if not isinstance(value, str):
        return str(value)
    return value if _PLAIN.fullmatch(value) else _JSON.encode(value)
