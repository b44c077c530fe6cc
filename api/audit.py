"""One structured log line per call: who called what, how it ended, how long it took.

No parameter, no header and no token is ever part of it.
"""

from __future__ import annotations

import time

from flask import Flask, Response, g, request

from callboard.log import LineLogger

__all__ = ["install"]

_CALL = "calls.call"  # the endpoint of the call path


def install(app: Flask, log: LineLogger) -> None:
    """Log each call to ``log`` when its response is ready."""

    @app.before_request
    def start() -> None:
        g.started = time.perf_counter()

    @app.after_request
    def finish(response: Response) -> Response:
        if request.endpoint == _CALL and request.method == "POST":  # and no preflight
            log.info(
                "call",
                run_id=response.headers.get("Run-Id"),
                action=(request.view_args or {}).get("name", "")[:64],
                caller=g.get("caller"),
                status=response.status_code,
                ms=round((time.perf_counter() - g.started) * 1000, 1),
                refused=g.get("refused"),
            )
        return response
