"""Reports: what an attempt tells the application's owner, and nobody else: why it failed, and what
its handler logged.

A report is a field ``report:<number>`` of the run's record, sealed. It is written with the end of
the attempt; one that succeeds and logs nothing has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from callboard import strict_json
from callboard.errors import SealError
from callboard.runs.seal import Sealer

__all__ = ["LogLine", "Report", "Sealed", "open_exception", "open_report", "seal_report"]


class LogLine(NamedTuple):
    """A line that a handler logged or printed."""

    at: int  # epoch milliseconds
    level: str  # such as "info"
    source: str  # "log" (`ctx.log`), "stdout", "stderr", or the name of a logger
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Of one attempt."""

    attempt: int  # 1-based
    error: str | None = None  # why it failed: the exception in a line, or the reason
    exception: str | None = None  # the type of what was raised
    traceback: str | None = None
    lines: Sequence[LogLine] = ()  # the last ones
    dropped: int = 0  # lines before these

    def to_json(self) -> bytes:
        """A list, in the order of the fields."""
        fields = (self.attempt, self.error, self.exception, self.traceback)
        return strict_json.dumps([*fields, self.lines, self.dropped])

    @classmethod
    def from_json(cls, text: bytes) -> Report:
        """The reverse of `to_json`."""
        attempt, error, exception, traceback, lines, dropped = strict_json.loads(text)
        return cls(
            attempt=attempt,
            error=error,
            exception=exception,
            traceback=traceback,
            lines=[LogLine(*line) for line in lines],
            dropped=dropped,
        )


class Sealed(NamedTuple):
    """A report as the scripts take it."""

    field: str  # of the record
    report: bytes
    exception: bytes  # by itself, for lists; b"" where nothing was raised


def seal_report(sealer: Sealer, run_id: str, action: str, report: Report) -> Sealed:
    """The report, for the record of its run."""
    exception = (report.exception or "").encode(errors="replace")
    return Sealed(
        f"report:{report.attempt}",
        sealer.seal("report", run_id, action, report.to_json()),
        sealer.seal("exception", run_id, action, exception) if exception else b"",
    )


def open_report(sealer: Sealer, run_id: str, action: str, attempt: int, sealed: bytes) -> Report:
    """Raises `SealError` for what is not the report of this attempt, and ValueError."""
    report = Report.from_json(sealer.open("report", run_id, action, sealed))
    if report.attempt != attempt:
        raise SealError(f"run {run_id}: the report of attempt {attempt} is another one's")
    return report


def open_exception(sealer: Sealer, run_id: str, action: str, sealed: bytes | None) -> str | None:
    """The type of what a run ended with; raises `SealError`."""
    return sealer.open("exception", run_id, action, sealed).decode() if sealed else None
