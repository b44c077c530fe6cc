"""gunicorn's settings for the API: `callboard web` names this file to it.

On a command line, flags such as ``--bind`` win over it. WEB_CONCURRENCY (1): worker processes.
"""

import gc
import importlib
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

from callboard.applications import ApplicationHeartbeat, Process
from callboard.errors import ConfigurationError
from callboard.layout import API
from callboard.log import printed
from callboard.log.lines import configure_logging, route_standard_logging, standard_formatter
from callboard.preflight import preflight
from callboard.processes.threads import supervise

# Loopback, unless a platform says which port it forwards to.
bind = f"0.0.0.0:{os.environ['PORT']}" if os.environ.get("PORT") else "127.0.0.1:8000"


server = importlib.import_module(f"{API}.server")  # in the wheel the API is `callboard.api`
worker_class = server.ApiWorker  # who waits for its client for too long, or is gone, is let go
worker_connections = 4000  # requests under way, or awaited
limit_request_field_size = 8192 + 64  # a token of 8 KiB, in its header
sendfile = False  # by the system call, a response could wait for its client unseen

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
    server.raise_file_limit(worker.cfg.worker_connections)
    gc.collect()
    gc.freeze()  # what is there now stays: the collector need not look at it again
    services = worker.wsgi.extensions["callboard"]
    worker.watch(
        per_address=services.settings.connections_per_address, hung_up=services.replies.hung_up
    )
    supervise("end of waits", lambda: _let_go_at_the_end(worker), threading.Event())
    settings, stopped = services.settings, threading.Event()
    me = Process.of(settings, f"API {socket.gethostname()}:{worker.pid}")
    heartbeat = ApplicationHeartbeat(services.redis, settings.keys, me)
    supervise("namespace", lambda: heartbeat.run(stopped), stopped)


def _let_go_at_the_end(worker: Any) -> None:
    """At the end of the process's life, who still waits for a run is answered without a result."""
    while worker.alive:
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
