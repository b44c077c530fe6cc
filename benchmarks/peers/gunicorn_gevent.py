"""gunicorn's settings for the Flask peers that are fastest under gevent: as Callboard's own."""

import os

worker_class = "gevent"
worker_connections = 4000
keepalive = 75  # seconds
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None
control_socket_disable = True
accesslog = None
