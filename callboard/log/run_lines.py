"""Lines of the process's log that are also lines of a run's (`callboard.log.run_log`)."""

from __future__ import annotations

import logging
import sys
import traceback
from typing import Any

from structlog.typing import EventDict

from callboard.log.run_log import current
from callboard.log.values import plain, to_json

__all__ = ["RunLogHandler", "keep", "keep_standard_logging"]

_OWN = frozenset({"run_id", "action", "caller", "stream", "exc_info", "event"})
#: Their own lines below the process's level are of no run, and cost one nothing.
_MACHINERY = ("amqp", "billiard", "celery", "kombu", "multiprocessing")


def keep(_: Any, level: str, line: EventDict) -> EventDict:
    """A structlog processor: keeps the line for its run, if it belongs to one."""
    if "_record" not in line and (log := current()) is not None:  # else `RunLogHandler` has it
        log.add(level, str(line.get("stream") or "log"), _text(line))
    return line


def _text(line: EventDict) -> str:
    event = line.get("event")
    shown = plain(event) if isinstance(event, str) else to_json(event)
    fields = plain({name: value for name, value in line.items() if name not in _OWN})
    told = " ".join([shown, *(f"{name}={_value(value)}" for name, value in fields.items())])
    return told + _raised(line.get("exc_info"))


def _value(value: object) -> str:
    return value if isinstance(value, str) and value.isalnum() else to_json(value)


def _raised(exc_info: Any) -> str:
    """The traceback of what is logged with the line, on lines of its own."""
    if isinstance(exc_info, BaseException):
        error: BaseException | None = exc_info
    elif isinstance(exc_info, tuple):
        error = exc_info[1]
    else:
        error = sys.exc_info()[1] if exc_info else None
    return "\n" + "".join(traceback.format_exception(error)).rstrip() if error else ""


class RunLogHandler(logging.Handler):
    """Of the root logger: what is logged with the standard library is kept for its run."""

    def emit(self, record: logging.LogRecord) -> None:
        """Called by `logging`; raises nothing."""
        if (log := current()) is None:
            return
        try:
            text = self.format(record)
        except Exception:  # noqa: BLE001 - arguments that do not fit, or without a text
            text = to_json([record.msg, record.args])
        log.add(record.levelname.lower(), record.name, text)


class _Above:
    """Passes what the process's log has: from a level on, or what a logger of a level of its own
    was asked for."""

    def __init__(self, level: int) -> None:
        self._level = level

    def filter(self, record: logging.LogRecord) -> bool:
        """Called by `logging`."""
        return record.levelno >= self._level or _has_own_level(record.name)


def _has_own_level(name: str) -> bool:
    logger: logging.Logger | None = logging.getLogger(name)
    while logger is not None and logger is not logging.root:
        if logger.level:
            return True
        logger = logger.parent
    return False


def keep_standard_logging(level: int) -> None:
    """Keep what runs log with `logging`, from INFO on; the process's log stays what it is.

    ``level``: of the root logger, whose handlers write the process's log.
    """
    for handler in logging.root.handlers:
        handler.addFilter(_Above(level))
    for name in _MACHINERY:
        logger = logging.getLogger(name)
        logger.setLevel(max(level, logger.level))
    logging.root.addHandler(RunLogHandler())
    logging.root.setLevel(min(level, logging.INFO))
