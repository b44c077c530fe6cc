"""gunicorn's settings for the Flask peers that are fastest with threads: one per caller."""

import os

worker_class = "gthread"
threads = 64
keepalive = 75  # seconds
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None
control_socket_disable = True
accesslog = None
