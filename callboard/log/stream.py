"""Where the lines of a log go: each whole, and none half written when a process is forked."""

from __future__ import annotations

import os
import threading
from typing import Any, TextIO

__all__ = ["LineStream", "writing"]

writing = threading.RLock()
"""Who writes a line holds it, and who forks. A stream has a lock of its own: were another thread
within it at a fork, held up by a slow reader, nobody would let go of it in the new process, whose
first line would wait for ever."""
os.register_at_fork(
    before=writing.acquire, after_in_parent=writing.release, after_in_child=writing.release
)


class LineStream:
    """Writes to a stream, for all threads of this process; a logger of structlog's, too."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> None:
        """Write a line, its end included, at once."""
        with writing:
            self._stream.write(text)
            self._stream.flush()

    def flush(self) -> None:
        """Nothing waits."""

    def line(self, text: str) -> None:
        """Write a line."""
        self.write(f"{text}\n")

    debug = info = warning = warn = error = exception = critical = fatal = line
