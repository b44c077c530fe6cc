"""gunicorn's gevent worker, as the API needs it."""

from __future__ import annotations

import contextlib
import errno
import itertools
import resource
import socket
import threading
import time
from collections.abc import Callable
from datetime import datetime
from http import HTTPStatus
from typing import Any

import gevent
from gunicorn.config import Config
from gunicorn.http import wsgi
from gunicorn.http.body import ChunkedReader
from gunicorn.http.errors import NoMoreData
from gunicorn.http.unreader import SocketUnreader
from gunicorn.util import close
from gunicorn.workers.ggevent import GeventWorker

from callboard.processes.threads import supervise

from . import connections as table
from .connection import Connection
from .connections import Connections, address_key
from .heads import Chunks, require_chunked_alone, require_version_and_host
from .refusals import TOO_MANY, refusal, response as refused
from .request import PlainRequest
from .response import PlainResponse

__all__ = ["ApiWorker", "raise_file_limit"]

TICK_SECONDS = 1.0
OTHER_FILES = 512  # that a process has open besides


class ApiWorker(GeventWorker):
    """gunicorn's worker of the API."""

    cfg: Config
    alive: bool

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

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """A connection, from its first byte to its last."""
        connection = Connection(client, address_key(addr))
        status = self.connections.add(connection)
        try:
            if status:
                connection.sendall(refused(status, *TOO_MANY[status], Retry_After="2"))
                connection.close()
            else:
                self._serve(listener, connection, addr)
        finally:
            self.connections.remove(connection)

    def _serve(self, listener: Any, connection: Connection, addr: Any) -> None:
        """The requests of a connection, one after the other; then it is closed."""
        req = None
        try:
            connection.setblocking(True)
            listener_name, unreader = listener.getsockname(), SocketUnreader(connection)
            for number in itertools.count(1):
                req = PlainRequest(self.cfg, unreader, addr, number)
                if not self._answer(listener_name, req, connection, addr):
                    break
        except (StopIteration, NoMoreData, gevent.GreenletExit, SystemExit):
            pass  # the client is gone, or the process ends
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN):
                self.log.exception("Socket error processing request.")
        except BaseException as error:  # noqa: BLE001 - each is answered
            self.handle_error(req, connection, addr, error)
        finally:
            close(connection)

    def _answer(
        self, listener_name: Any, req: PlainRequest, connection: Connection, addr: Any
    ) -> bool:
        """Serve a request, when its head is there. Whether another one can come."""
        connection.begin()
        if not req.is_usual:
            require_version_and_host(req)
            if isinstance(req.body.reader, ChunkedReader):
                require_chunked_alone(req.headers)
                req.body.reader = Chunks(req.body.reader)
        response, environ = wsgi.create(
            req, connection, addr, listener_name, self.cfg, PlainResponse
        )
        environ["wsgi.multithread"] = True
        self._count()
        if not (self.alive and self.cfg.keepalive):
            response.force_close()
        self._respond(environ, response)
        return not response.should_close() and connection.finish(req)

    def _respond(self, environ: dict[str, Any], response: PlainResponse) -> None:
        """What the application has to say to it; raises StopIteration if it fails half-way."""
        parts: Any = ()
        begun = datetime.now()  # noqa: DTZ005 - for a difference
        try:
            parts = self.wsgi(environ, response.start_response)
            for part in parts:
                response.write(part)
            response.close()
        except Exception as error:
            if isinstance(error, OSError) or not response.headers_sent:
                raise
            self.log.exception("Error handling request")
            response.sock.shutdown(socket.SHUT_RDWR)
            raise StopIteration from None
        finally:
            self.log.access(response, response.req, environ, datetime.now() - begun)  # noqa: DTZ005
            if hasattr(parts, "close"):
                parts.close()

    def _count(self) -> None:
        self.nr += 1
        if self.nr >= self.max_requests and self.alive:
            self.log.info("Autorestarting worker after current request.")
            self.alive = False

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """A request that cannot be served; gunicorn closes the connection."""
        status, code, text = refusal(exc)
        if status is HTTPStatus.INTERNAL_SERVER_ERROR:
            self.log.error("Request failed: %s", type(exc).__name__, exc_info=exc)
        else:  # without the exception's text: it quotes what was sent
            self.log.warning("Request refused: %d, %s", status, type(exc).__name__)
        with contextlib.suppress(OSError):  # it is gone
            client.sendall(refused(status, code, text))


def raise_file_limit(connections: int) -> None:
    """Let the process have so many connections, as far as the system lets it.

    A common limit is 1,024 files, which a process may raise by itself.
    """
    needed = connections + table.SPARE + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
