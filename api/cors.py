"""Cross-origin requests from the origins of CALLBOARD_CORS_ORIGINS (Fetch standard, s. 3.3).

Origins are compared as a whole: no wildcard, no pattern. Callers bring a bearer token, so no
cookie is ever allowed.
"""

from __future__ import annotations

from flask import Flask, Response, request

__all__ = ["install"]

METHODS = "GET, POST"
REQUEST_HEADERS = "Authorization, Content-Type, Idempotency-Key, Prefer, traceparent"
RESPONSE_HEADERS = "Run-Id, Location, Retry-After, Idempotent-Replayed, Preference-Applied"
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
        response.headers["Access-Control-Allow-Headers"] = REQUEST_HEADERS
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
