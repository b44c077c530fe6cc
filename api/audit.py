"""One structured log line per call: who called what, how it ended, how long it took.

No parameter, no header and no token is ever part of it.
"""

from __future__ import annotations

import time

from flask import Flask, Request, Response

from api.services import this_request
from callboard.log import LineLogger

__all__ = ["CALLER", "REFUSED", "STARTED", "install", "is_call"]

# What is noted of a request, in its WSGI environment
STARTED = "callboard.started"  # time.perf_counter seconds
CALLER = "callboard.caller"  # the verified subject
REFUSED = "callboard.refused"  # why its token was


def install(app: Flask, log: LineLogger) -> None:
    """Log each call to ``log`` when its response is ready."""

    @app.before_request
    def start() -> None:
        this_request().environ[STARTED] = time.perf_counter()

    @app.after_request
    def finish(response: Response) -> Response:
        asked = this_request()
        if is_call(asked):
            noted = asked.environ
            log.info(
                "call",
                run_id=response.headers.get("Run-Id"),
                action=(asked.view_args or {}).get("name", "")[:64],
                caller=noted.get(CALLER),
                status=response.status_code,
                ms=round((time.perf_counter() - noted[STARTED]) * 1000, 1),
                refused=noted.get(REFUSED),
            )
        return response


def is_call(asked: Request) -> bool:
    """Whether an action was to be called; a preflight is none."""
    return asked.endpoint == "calls.call" and asked.method == "POST"
