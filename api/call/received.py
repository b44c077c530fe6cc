"""What of a request an action with ``raw=True`` is handed."""

from __future__ import annotations

import hashlib
from typing import Any

from flask import Request
from werkzeug.exceptions import RequestHeaderFieldsTooLarge

from callboard.sdk.request import ActionRequest

__all__ = ["MAX_HEADERS_BYTES", "digested", "received"]

MAX_HEADERS_BYTES = 16 * 1024  # of names and values: they are sealed with the run


def received(request: Request, body: bytes) -> ActionRequest:
    """Its headers and body; raises `RequestHeaderFieldsTooLarge`."""
    handed = ActionRequest.of(request.headers.items(), body)
    if sum(len(name) + len(value) for name, value in handed.headers.items()) > MAX_HEADERS_BYTES:
        raise RequestHeaderFieldsTooLarge
    return handed


def digested(handed: ActionRequest) -> dict[str, Any]:
    """What an idempotency key knows the request by: as the params of another call."""
    return {"sha256": hashlib.sha256(handed.body).hexdigest()}
