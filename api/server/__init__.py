"""The HTTP server: gunicorn's gevent worker, with an end to every phase of a connection.

A connection is a greenlet. It waits for its client (for a request, for the rest of a head or of a
body, for room to send) or it works for it. One thread, the reaper, looks at all of them once a
second: whoever waits for its client for too long is ended, and where a client has hung up while
its request waits for a run, that wait is ended. There is no timer per request.

Nobody can fill the server: an address has a bounded number of connections, and where all places
are taken, those that have waited for their clients longest make room.

This module is imported before gevent has patched the standard library: it imports nothing of the
application.
"""

from __future__ import annotations

from .worker import ApiWorker, raise_file_limit

__all__ = ["ApiWorker", "raise_file_limit"]
