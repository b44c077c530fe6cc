"""Cross-origin requests from the origins of CALLBOARD_CORS_ORIGINS (Fetch standard, s. 3.3).

Origins are compared as a whole: no wildcard, no pattern. Callers bring a bearer token, so no
cookie is ever allowed. A page of these origins may send any header: what instruments its requests
(tracing, error reports) adds some of its own, and none of them has a power here that a client
without a browser would not have.
"""

from __future__ import annotations

import re

from flask import Flask, Response, request

__all__ = ["install"]

_NAMES = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~ ,-]{1,1024}")

METHODS = "GET, POST"
REQUEST_HEADERS = (
    "Authorization, Content-Type, Idempotency-Key, Prefer, Run-Delay, Run-At, Last-Event-ID, "
    "Cache-Control, traceparent, tracestate, baggage, sentry-trace"
)
RESPONSE_HEADERS = (
    "Run-Id, Location, Retry-After, Idempotent-Replayed, Preference-Applied, WWW-Authenticate, "
    "Allow"
)
MAX_AGE = "600"  # seconds for which a browser remembers the answer to a preflight


def install(app: Flask, origins: tuple[str, ...]) -> None:
    """Answer preflights and mark every response, for these origins and no others."""
    allowed = frozenset(origins)

    @app.before_request
    def preflight() -> Response | None:
        asked = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
        if not asked or request.headers.get("Origin") not in allowed:
            return None
        response = Response(status=204)
        response.headers["Access-Control-Allow-Methods"] = METHODS
        response.headers["Access-Control-Allow-Headers"] = _allowed_headers()
        response.headers["Access-Control-Max-Age"] = MAX_AGE
        return response

    @app.after_request
    def mark(response: Response) -> Response:
        response.vary.add("Origin")  # also for the others: a cache must not mix them up
        origin = request.headers.get("Origin")
        if origin in allowed:
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Expose-Headers"] = RESPONSE_HEADERS
        return response


def _allowed_headers() -> str:
    asked = request.headers.get("Access-Control-Request-Headers", "")
    return f"{REQUEST_HEADERS}, {asked}" if _NAMES.fullmatch(asked) else REQUEST_HEADERS
