"""A gunicorn with `api.server`'s worker, and a small application of a test's own."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from callboard.stack.ports import free_port

__all__ = ["serving", "told"]


@contextmanager
def serving(
    folder: Path, application: str, settings: str, host: str = "127.0.0.1", *also: str
) -> Iterator[int]:
    """Its port on this host, and on 127.0.0.1; what it logs is in ``folder / "log"``.

    ``also``: what else it listens on.
    ``application``: the source of a module with ``app``; ``settings``: that of gunicorn's.
    """
    (folder / "small.py").write_text(application)
    (folder / "conf.py").write_text(settings)
    port = free_port()
    with (folder / "log").open("w") as log:
        binds = [flag for address in (f"{host}:{port}", *also) for flag in ("-b", address)]
        flags = ["-c", "conf.py", *binds]
        process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", *flags, "small:app"],
            cwd=folder,
            stderr=log,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while not _answers(port):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline
        yield port
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return connection.recv(100).startswith(b"HTTP/1.0 200")
    except OSError:
        return False


def told(connection: socket.socket) -> bytes:
    """All that comes until the server closes."""
    received = b""
    while data := connection.recv(65536):
        received += data
    return received
