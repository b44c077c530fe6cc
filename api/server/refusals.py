"""Responses to what is refused before the application sees it: envelopes, too."""

from __future__ import annotations

import json
from collections.abc import Mapping
from email.utils import formatdate
from http import HTTPStatus

from gunicorn.http import errors as refused

from .heads import InvalidHost

__all__ = ["TOO_MANY", "refusal", "response"]

# Exceptions of gunicorn -> status, code and what is wrong, for the client
_REFUSALS: Mapping[type[BaseException], tuple[HTTPStatus, str, str]] = {
    refused.LimitRequestLine: (
        HTTPStatus.REQUEST_URI_TOO_LONG,
        "too_large",
        "The request line is too long",
    ),
    refused.LimitRequestHeaders: (
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
        "too_large",
        "The headers are too large: at most 100, each of 8 KiB, 64 KiB in all",
    ),
    refused.UnsupportedTransferCoding: (
        HTTPStatus.NOT_IMPLEMENTED,
        "bad_request",
        "The only Transfer-Encoding is chunked",
    ),
    refused.ExpectationFailed: (
        HTTPStatus.EXPECTATION_FAILED,
        "bad_request",
        "The only Expect is 100-continue",
    ),
}
_MALFORMED: Mapping[type[BaseException], str] = {
    refused.InvalidRequestLine: "The request line is not well-formed",
    refused.InvalidRequestMethod: "The request line names no valid method",
    refused.InvalidHTTPVersion: "The request is not of HTTP/1.1 or HTTP/1.0",
    InvalidHost: "There is no Host header, or it is not a name or an address with at most a port",
    refused.InvalidHeader: "A header is not well-formed",
    refused.InvalidHeaderName: "A header's name is not well-formed",
    refused.ObsoleteFolding: "A header goes over several lines",
}
_OWN_MISTAKES = (
    refused.ConfigurationProblem,
    refused.InvalidResponseHeader,
    refused.InvalidResponseHeaderName,
)


def refusal(error: BaseException) -> tuple[HTTPStatus, str, str]:
    """Status, code and text for what ended a request outside of the application."""
    kind = type(error)
    if kind in _REFUSALS:
        return _REFUSALS[kind]
    if isinstance(getattr(error, "version", None), tuple):  # a version, but another
        return HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "bad_request", _MALFORMED[kind]
    if isinstance(error, refused.ParseException) and not isinstance(error, _OWN_MISTAKES):
        text = _MALFORMED.get(kind, "The request is not well-formed")
        return HTTPStatus.BAD_REQUEST, "bad_request", text
    return HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", "Internal error"


TOO_MANY = {
    HTTPStatus.TOO_MANY_REQUESTS: (
        "rate_limited",
        "Too many connections from your address: close some, or use them again",
    ),
    HTTPStatus.SERVICE_UNAVAILABLE: ("unavailable", "Too many requests at once; try again"),
}


def response(status: HTTPStatus, code: str, text: str, **headers: str) -> bytes:
    """A whole response that closes the connection: an envelope; header names with ``_`` for ``-``.

    The same as `api.errors` makes of what is refused inside of the application.
    """
    body = json.dumps({"success": False, "error": text, "code": code}).encode()
    fields = {
        "Date": formatdate(usegmt=True),
        "Connection": "close",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    lines = [f"HTTP/1.1 {status.value} {status.phrase}", *(f"{k}: {v}" for k, v in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body
