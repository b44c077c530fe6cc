"""Whether the server that loads the API can hold callers who wait."""

from __future__ import annotations

import os
import sys

from callboard.errors import ConfigurationError
from callboard.layout import GUNICORN

__all__ = ["require_gevent"]


def require_gevent() -> None:
    """Raise `ConfigurationError` in a gunicorn whose workers block, or that preloads.

    A call holds its connection until its run has ended. In a ``sync`` worker the next caller
    would wait for that, and gunicorn would kill the process of a call that takes long; with
    ``gthread`` as many calls as there are threads would keep all others out.
    """
    if "gunicorn.arbiter" not in sys.modules or "SERVER_SOFTWARE" not in os.environ:
        return  # gunicorn sets the variable as it starts
    from gevent import monkey

    if not monkey.is_module_patched("socket"):
        raise ConfigurationError(
            f"gunicorn loads the API without gevent, so that each call would block a process "
            f"or a thread until its run has ended. Start it with `callboard web`, or give gunicorn "
            f"--config '{GUNICORN}' and no --preload."
        )
