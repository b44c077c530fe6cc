"""gunicorn's settings for the API: `callboard web` names this file to it.

On a command line, flags such as ``--bind`` win over it. WEB_CONCURRENCY (1): worker processes.
"""

import contextlib
import gc
import math
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from gunicorn.glogging import Logger
from gunicorn.workers.ggevent import GeventWorker

from callboard import printed
from callboard.errors import ConfigurationError
from callboard.log import configure_logging, route_standard_logging, standard_formatter
from callboard.preflight import preflight

# Loopback, unless a platform says which port it forwards to.
bind = f"0.0.0.0:{os.environ['PORT']}" if os.environ.get("PORT") else "127.0.0.1:8000"


class worker_class(GeventWorker):  # noqa: N801 - the setting's name
    """A call holds a connection while its run is executed: a greenlet each, not a process each.

    gunicorn's own sends head and body of a response apart, two packets for which the client wakes
    up twice, and sets a timer for each request. Here a head waits for what comes behind it, and
    one greenlet looks after all connections that wait for a request.
    """

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Called by gunicorn for each connection."""
        connection = Connection(client)
        waiting[connection] = time.monotonic()
        try:
            super().handle(listener, connection, addr)
        finally:
            waiting.pop(connection, None)

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> None:
        """Called by gunicorn for each request, when its head is there."""
        waiting.pop(sock, None)
        try:
            super().handle_request(listener_name, req, sock, addr)
        finally:
            sock.flush()  # a head without a body
            waiting[sock] = time.monotonic()

    def timeout_ctx(self) -> Any:
        """Called by gunicorn to bound the wait for a request; `end_idle` does."""
        return NO_TIMER


class Connection:
    """A client's connection; the head of a response is kept back until there is more to send."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._head = b""
        self.recv = connection.recv
        self.send = connection.send
        self.gettimeout, self.settimeout = connection.gettimeout, connection.settimeout

    def __getattr__(self, name: str) -> Any:
        self.flush()  # whatever else is to be done with it, such as `sendfile`
        return getattr(self._connection, name)

    def sendall(self, data: bytes) -> None:
        """Send it, or keep it where it is a head."""
        head, self._head = self._head, b""
        if not head and data.startswith(b"HTTP/1.") and data.endswith(b"\r\n\r\n"):
            self._head = data
            return
        data = head + data
        sent = self.send(data)  # gevent's sendall asks for the buffer's size each time
        if sent < len(data):
            self._connection.sendall(data[sent:])

    def flush(self) -> None:
        """Send what was kept."""
        if self._head:
            self.sendall(b"")


# Connections that wait for a request, or for the rest of its head: since when (time.monotonic
# seconds). Who waits longest comes first.
waiting: dict[Connection, float] = {}
NO_TIMER = contextlib.nullcontext()


def end_idle(seconds: float) -> None:
    """End the connections that have waited for so long: they read the end, gunicorn closes them.

    A request that came in this moment is still read, and answered.
    """
    while waiting:
        connection, since = next(iter(waiting.items()))
        if time.monotonic() - since < seconds:
            break
        del waiting[connection]
        with contextlib.suppress(OSError):  # it is gone
            connection.shutdown(socket.SHUT_RD)


worker_connections = 4000

# Callers who wait get their result, or are told in time where it will be.
graceful_timeout = int(float(os.environ.get("CALLBOARD_STOP_GRACE") or 20))
waits_end = graceful_timeout - min(2.0, graceful_timeout / 4)  # seconds: of that, for waiting
keepalive = 75  # seconds: more than the 60 after which common load balancers let go
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: S108 - no disk there

# What a proxy says of scheme and client is for the application to judge, by
# CALLBOARD_TRUSTED_PROXIES. Here nobody's word changes anything: no header does, whoever sends it.
secure_scheme_headers: dict[str, str] = {}
forwarder_headers = ""
forwarded_allow_ips = "*"

control_socket_disable = True  # one path per user: two applications would share it

# Where the processes keep what they count for /metrics; whoever is asked adds it up. A folder of
# this master's own, unless PROMETHEUS_MULTIPROC_DIR names one; a reload keeps it.
METRICS = "callboard-metrics-"
MINE = f"{METRICS}{os.getpid()}-"
_folder = Path(os.environ.get("PROMETHEUS_MULTIPROC_DIR") or METRICS).name
if _folder.startswith(METRICS) and not _folder.startswith(MINE):  # none, or the master's before
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix=MINE, dir=worker_tmp_dir)

accesslog = None  # the API logs calls itself, without headers
errorlog = "-"


class logger_class(Logger):  # noqa: N801 - the setting's name
    """gunicorn's log lines, and those of libraries in its processes, in the form of the API's."""

    def setup(self, cfg: Any) -> None:
        """Called by gunicorn at its start and at each reload."""
        super().setup(cfg)
        configure_logging(development=os.environ.get("CALLBOARD_ENV") == "development")
        route_standard_logging()
        for handler in self.error_log.handlers:
            handler.setFormatter(standard_formatter())


def post_fork(server: object, worker: object) -> None:
    """Called by gunicorn in each process before it loads the application."""
    printed.capture_output()


def on_starting(server: object) -> None:
    """Tell a mistake in the settings or the actions once, instead of once per worker."""
    if os.environ.get("CALLBOARD_ENV") == "development":
        return  # `callboard up` has looked
    try:
        preflight(os.environ)
    except ConfigurationError as error:
        sys.exit(str(error))


def post_worker_init(worker: Any) -> None:
    """Called by gunicorn in each process before its first request."""
    # A setting is looked up by two of gunicorn's functions, thirty times a request: a fifth of
    # what gunicorn does for one. From here on they are plain attributes.
    vars(worker.cfg).update({name: one.get() for name, one in worker.cfg.settings.items()})
    gc.collect()
    gc.freeze()  # what is there now stays: the collector need not look at it again
    threading.Thread(target=_look_after, args=(worker,), name="look-after", daemon=True).start()


def _look_after(worker: Any) -> None:
    """Idle connections are ended; at the end of the process's life, who still waits for a run is
    answered without a result."""
    while worker.alive:
        end_idle(worker.cfg.keepalive or math.inf)
        time.sleep(0.1)
    time.sleep(waits_end)
    worker.wsgi.extensions["callboard"].replies.let_go()


def child_exit(server: object, worker: Any) -> None:
    """What a process that is gone had counted still counts; what it measured does not."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(worker.pid)


def on_exit(server: object) -> None:
    """Remove the folder of the metrics."""
    folder = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
    if folder.name.startswith(MINE):
        shutil.rmtree(folder, ignore_errors=True)
