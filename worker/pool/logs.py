"""Log lines of the worker and beat: Celery's in the form of ours, all with the run they are about.

Celery asks for this with its signal ``setup_logging``. What it logs below its ``--loglevel``
(WARNING) costs nothing: two lines for each run would cost throughput.
"""

from __future__ import annotations

import logging
from logging.handlers import WatchedFileHandler
from typing import Any

from celery import signals
from celery.utils.log import get_multiprocessing_logger
from structlog.typing import EventDict, Processor

from callboard.log.lines import route_standard_logging
from callboard.log.printed import capture_output
from callboard.log.run_lines import keep_standard_logging
from callboard.log.stream import writing

from ..lease.scoreboard import Scoreboard
from ..loop.running import current

__all__ = ["connect_logging", "run_adder"]


def run_adder(scoreboard: Scoreboard) -> Processor:
    """A structlog processor: adds run id and action, where the line does not have them.

    They are those of the run that this process has in hand, or of the task that Celery wrote
    about: it keeps them, and the arguments, in the record's ``data``.
    """

    def add_run(_: Any, __: str, line: EventDict) -> EventDict:
        about = getattr(line.get("_record"), "data", None)
        if running := current.get():
            _add(line, running.run_id, running.action.name)
        elif mine := scoreboard.mine():
            _add(line, mine.run_id, mine.action)
        elif isinstance(about, dict) and {"id", "name"} <= about.keys():
            _add(line, about["id"], about["name"].removeprefix("actions."))
        return line

    return add_run


def _add(line: EventDict, run_id: str, action: str) -> None:
    line.setdefault("run_id", run_id)
    line.setdefault("action", action)


class _File(WatchedFileHandler):
    """A file whose lines are whole when a process is forked."""

    def emit(self, record: logging.LogRecord) -> None:
        """As the standard library's."""
        with writing:
            super().emit(record)


def connect_logging() -> None:
    """Have Celery leave its logging to us; `configure_logging` says how it looks."""
    signals.setup_logging.connect(_set_up)
    signals.celeryd_init.connect(_early)


def _set_up(loglevel: int, logfile: str | None, **_: Any) -> None:
    handler = _File(logfile, encoding="utf-8") if logfile else None
    route_standard_logging(loglevel, handler)
    keep_standard_logging(loglevel)
    capture_output()
    pool = get_multiprocessing_logger()  # which keeps to itself, unless told otherwise
    pool.propagate = True
    pool.setLevel(max(loglevel, logging.ERROR))


def _early(**_: Any) -> None:
    """What a worker warns of before it sets its log up."""
    route_standard_logging()
