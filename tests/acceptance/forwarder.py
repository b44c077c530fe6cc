"""An address that leads to one server, later to another: what stands before a failover."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Forwarder:
    """Forwards each new connection to ``port``; those that are open stay where they are."""

    def __init__(self, listener: socket.socket) -> None:
        self.port = 0  # of the server, on 127.0.0.1
        self.address = listener.getsockname()[1]
        self._listener = listener

    def serve(self) -> None:
        """Until the listener is closed."""
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._join, args=(client,), daemon=True).start()

    def _join(self, client: socket.socket) -> None:
        with (
            suppress(OSError),
            client,
            socket.create_connection(("127.0.0.1", self.port)) as server,
        ):
            back = threading.Thread(target=_pump, args=(server, client), daemon=True)
            back.start()
            _pump(client, server)
            back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for each in (source, target):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


@contextmanager
def forwarding() -> Iterator[Forwarder]:
    """A forwarder on a free port of 127.0.0.1."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        forwarder = Forwarder(listener)
        thread = threading.Thread(target=forwarder.serve, daemon=True)
        thread.start()
        try:
            yield forwarder
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
