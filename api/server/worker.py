"""gunicorn's gevent worker, as the API needs it."""

from __future__ import annotations

import contextlib
import resource
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from gunicorn.config import Config
from gunicorn.http.body import ChunkedReader
from gunicorn.workers.ggevent import GeventWorker

from callboard.processes.threads import supervise

from . import connections as table
from .connection import Connection
from .connections import Connections, address_key
from .heads import Chunks, require_chunked_alone, require_version_and_host
from .refusals import TOO_MANY, refusal, response

__all__ = ["ApiWorker", "raise_file_limit"]

TICK_SECONDS = 1.0
OTHER_FILES = 512  # that a process has open besides


class PlainConfig(Config):
    """gunicorn's settings as plain attributes: by itself it looks each up anew, 30 times a request.

    What a setting is no more than a part of stays a property: `is_ssl`.
    """

    def __init__(self, settings: Config) -> None:
        values = {name: setting.get() for name, setting in settings.settings.items()}
        self.__dict__.update(vars(settings) | values)


class ApiWorker(GeventWorker):
    """gunicorn's worker of the API."""

    cfg: Config

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.connections = Connections(self.worker_connections, self.cfg.keepalive)
        self.worker_connections += table.SPARE

    def watch(self, *, per_address: int | None, hung_up: Callable[[set[int]], object]) -> None:
        """Start the reaper; ``hung_up`` is told which threads serve a client that is gone."""
        self.connections.per_address = per_address

        def reap() -> None:
            while self.alive or len(self.connections):
                self.connections.end_overdue()
                if gone := self.connections.hung_up():
                    hung_up(gone)
                time.sleep(TICK_SECONDS)

        supervise("reaper", reap, threading.Event())

    # Called by gunicorn

    def init_process(self) -> None:
        """In the new process, before all else."""
        self.cfg = self.log.cfg = PlainConfig(self.cfg)
        super().init_process()

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """A connection, from its first byte to its last."""
        connection = Connection(client, address_key(addr))
        status = self.connections.add(connection)
        try:
            if status:
                connection.sendall(response(status, *TOO_MANY[status], Retry_After="2"))
                connection.close()
            else:
                super().handle(listener, connection, addr)
        finally:
            self.connections.remove(connection)

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> None:
        """A request, when its head is there; raises StopIteration if it was the last one."""
        sock.begin()
        require_version_and_host(req)
        if isinstance(req.body.reader, ChunkedReader):
            require_chunked_alone(req.headers)
            req.body.reader = Chunks(req.body.reader)
        super().handle_request(listener_name, req, sock, addr)
        if not sock.finish(req):
            raise StopIteration

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """A request that cannot be served; gunicorn closes the connection."""
        status, code, text = refusal(exc)
        if status is HTTPStatus.INTERNAL_SERVER_ERROR:
            self.log.error("Request failed: %s", type(exc).__name__, exc_info=exc)
        else:  # without the exception's text: it quotes what was sent
            self.log.warning("Request refused: %d, %s", status, type(exc).__name__)
        with contextlib.suppress(OSError):  # it is gone
            client.sendall(response(status, code, text))

    def timeout_ctx(self) -> Any:
        """Bounds the wait for a request: the reaper does."""
        return _NO_TIMER


_NO_TIMER = contextlib.nullcontext()


def raise_file_limit(connections: int) -> None:
    """Let the process have so many connections, as far as the system lets it.

    A common limit is 1,024 files, which a process may raise by itself.
    """
    needed = connections + table.SPARE + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
