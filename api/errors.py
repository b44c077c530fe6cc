"""The one table from errors to HTTP, and the bodies of responses."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

import structlog
from flask import Flask, Response, request
from werkzeug.datastructures import Headers
from werkzeug.exceptions import HTTPException

from callboard import errors

from .telemetry import audit

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = ["STATUS", "envelope", "fence", "install"]

STATUS: dict[type[errors.CallboardError], int] = {
    errors.BadRequest: 400,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.UnknownAction: 404,
    errors.NotFound: 404,
    errors.NotRetryable: 409,
    errors.SealError: 410,
    errors.InvalidParams: 422,
    errors.KeyReused: 422,
    errors.RateLimited: 429,
    errors.QueueFull: 503,
    errors.BrokerUnavailable: 503,
    errors.DatabaseUnavailable: 503,
    errors.IssuerUnavailable: 503,
    errors.NotReady: 503,
    errors.NewerFormat: 503,
}
"""Every error that a request can end with. The rest never leaves a worker or a start-up."""

_MESSAGES = {
    404: "Not found",
    405: "Method not allowed",
    413: "The body is larger than 1 MiB",
    415: "Send the body as Content-Type: application/json",
}


FENCES = [("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff")]
"""Headers of every response that does not say otherwise: a caller's data are kept nowhere."""


class Envelope(Response):
    """A response with a whole body, of a status that has one, and headers that are final."""

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Called by Flask to send it, instead of looking for what could be put right in it."""
        if environ["REQUEST_METHOD"] == "HEAD":
            return super().__call__(environ, start_response)
        start_response(self.status, self.headers.to_wsgi_list() + FENCES)
        return cast("list[bytes]", self.response)  # set whole

    def get_wsgi_headers(self, environ: WSGIEnvironment) -> Headers:
        """Called for the answer to a HEAD."""
        headers = super().get_wsgi_headers(environ)
        headers.extend(FENCES)
        return headers


def fence(response: Response) -> None:
    """Give a response the headers that an envelope has, where it has none of its own."""
    if type(response) is not Envelope:
        for name, value in FENCES:
            response.headers.setdefault(name, value)


def envelope(body: bytes | dict[str, Any], status: int, **headers: str) -> Response:
    """A response with a JSON body; header names with ``_`` for ``-``."""
    text = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False)
    response = Envelope(text, status, content_type="application/json")
    for name, value in headers.items():
        response.headers[name.replace("_", "-")] = value
    return response


def install(app: Flask) -> None:
    """Answer every error as an envelope."""
    app.register_error_handler(errors.CallboardError, _refused)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(Exception, _unexpected)


def _refused(error: errors.CallboardError) -> Response:
    status = STATUS.get(type(error))
    if status is None:
        return _unexpected(error)
    body: dict[str, Any] = {"success": False, "error": str(error)}
    headers: dict[str, str] = {}
    if isinstance(error, errors.InvalidParams):
        body["issues"] = error.issues
    if isinstance(error, errors.Unauthorized):
        request.environ[audit.REFUSED] = error.reason
        headers["WWW_Authenticate"] = (
            'Bearer error="invalid_token"' if error.token_given else "Bearer"
        )
    if status == 503:
        headers["Retry_After"] = "2"
    if isinstance(error, errors.RateLimited):
        headers["Retry_After"] = str(error.retry_after)
    return envelope(body, status, **headers)


def _http(error: HTTPException) -> Response:
    status = error.code or 500
    text = _MESSAGES.get(status) or error.name
    response = envelope({"success": False, "error": text}, status)
    for name, value in error.get_headers():
        if name not in ("Content-Type", "Content-Length"):
            response.headers[name] = value
    return response


def _unexpected(error: Exception) -> Response:
    structlog.get_logger("callboard.api").error(
        "request failed",
        method=request.method,
        path=request.path[:200],  # names the action or the run
        error=type(error).__name__,
        exc_info=error,
    )
    return envelope({"success": False, "error": "Internal error"}, 500)
