"""The one table from errors to HTTP, and the bodies of responses."""

from __future__ import annotations

import json
from typing import Any

import structlog
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from callboard import errors

from .telemetry import audit

__all__ = ["STATUS", "envelope", "install"]

STATUS: dict[type[errors.CallboardError], int] = {
    errors.BadRequest: 400,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.UnknownAction: 404,
    errors.NotFound: 404,
    errors.NotReplayable: 409,
    errors.NotRetryable: 409,
    errors.NotWaiting: 409,
    errors.TooManySignals: 409,
    errors.SealError: 410,
    errors.InvalidParams: 422,
    errors.KeyReused: 422,
    errors.RateLimited: 429,
    errors.LimitKeyFailed: 500,
    errors.QueueFull: 503,
    errors.BrokerUnavailable: 503,
    errors.DatabaseUnavailable: 503,
    errors.IssuerUnavailable: 503,
    errors.NotReady: 503,
    errors.NewerFormat: 503,
}
"""Every error that a request can end with. The rest never leaves a worker or a start-up."""

_CODES = {404: "not_found", 413: "too_large", 414: "too_large", 431: "too_large"}
_MESSAGES = {
    404: "Not found",
    405: "Method not allowed",
    413: "The body is larger than 1 MiB",
    431: "The headers are larger than 16 KiB, which is all that an action is handed",
    415: "Send the body as Content-Type: application/json",
}


def envelope(body: bytes | dict[str, Any], status: int, **headers: str) -> Response:
    """A response with a JSON body; header names with ``_`` for ``-``."""
    text = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False)
    response = Response(text, status, content_type="application/json")
    response.direct_passthrough = True  # whole as it is
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
    body: dict[str, Any] = {"success": False, "error": str(error), "code": error.code}
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
    code = _CODES.get(status, "bad_request" if status < 500 else errors.CallboardError.code)
    response = envelope({"success": False, "error": text, "code": code}, status)
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
    body = {"success": False, "error": "Internal error", "code": errors.CallboardError.code}
    return envelope(body, 500)
