"""What is printed in a process of ours: at once, as lines of its log."""

from __future__ import annotations

import io
import sys
import threading
from typing import Any, TextIO

import structlog

from callboard.log.run_log import current

__all__ = ["Printed", "capture_output", "end_lines", "error_stream"]

LONGEST = 8_192  # characters of a line that has no end yet


class Printed(io.TextIOBase):
    """Stands for a standard stream: each line that is written becomes a line of the log.

    A line belongs to the run, and the thread, that prints it; one that has no end yet waits for it,
    or for a flush. Whoever asks for the file below (a subprocess does) gets the stream's own.
    """

    def __init__(self, stream: TextIO, name: str) -> None:
        self.stream = stream
        self._name = name
        self._begun = threading.local()

    def write(self, text: str, /) -> int:
        """Called by ``print``."""
        begun, key = self._place()
        *lines, rest = (begun.get(key, "") + text).split("\n")
        for line in lines:
            self._log_line(line)
        begun[key] = rest
        if len(rest) > LONGEST:
            self.flush()
        return len(text)

    def flush(self) -> None:
        """Write what was begun, as a line."""
        begun, key = self._place()
        if rest := begun.pop(key, ""):
            self._log_line(rest)

    def _place(self) -> tuple[dict[Any, str], Any]:
        """Where a line begins that has no end yet: with its run, or else with its thread."""
        key = (self._name, threading.get_ident())
        log = current()
        return (self._begun.__dict__ if log is None else log.begun), key

    def _log_line(self, line: str) -> None:
        if line.strip():
            structlog.get_logger(self._name).info(line.rstrip(), stream=self._name)

    def writable(self) -> bool:
        """It is."""
        return True

    def isatty(self) -> bool:
        """It is a log."""
        return False

    def fileno(self) -> int:
        """The stream's own."""
        return self.stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The stream's own."""
        return self.stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        """The stream's own."""
        return self.stream.errors

    @property
    def buffer(self) -> Any:
        """For bytes: they are written as they are."""
        return self.stream.buffer


def capture_output() -> None:
    """Have this process, and those that it forks, log what is printed; a terminal shows it itself.

    For a process of our own, after `callboard.log.lines.configure_logging`.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, Printed) and not stream.isatty():
            stream.flush()
            setattr(sys, name, Printed(stream, name))


def end_lines() -> None:
    """Write what this thread has begun to print: what comes next is another run's."""
    for stream in (sys.stdout, sys.stderr):
        if type(stream) is Printed:  # `isinstance` would ask all abstract classes of `io`
            stream.flush()


def error_stream() -> TextIO:
    """Standard error itself, which the lines of the log go to."""
    stream = sys.stderr
    return stream.stream if type(stream) is Printed else stream
