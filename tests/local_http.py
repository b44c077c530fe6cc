"""A real HTTP server on a free port, for upstreams, collectors and the API itself."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from werkzeug.serving import make_server


@contextmanager
def served(app: Any) -> Iterator[str]:
    """The address of a WSGI application that runs in a thread."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        if services := getattr(app, "extensions", {}).get("callboard"):
            services.close()


@contextmanager
def scripted(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """The address of a server that reads each request's head and lets ``answer`` do the rest.

    Connections are closed when the block ends, whatever ``answer`` is at.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as open_ones:

        def serve(connection: socket.socket) -> None:
            with suppress(OSError):
                while b"\r\n\r\n" not in connection.recv(65536):
                    pass
                answer(connection)
                connection.close()

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection = listener.accept()[0]
                    open_ones.callback(connection.close)
                    threading.Thread(target=serve, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
