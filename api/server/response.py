"""A response, as the server sends it: gunicorn's, without its work on what is always the same."""

from __future__ import annotations

import time
from collections.abc import Callable
from email.utils import formatdate
from functools import lru_cache
from typing import Any

from gunicorn.http.wsgi import HEADER_VALUE_RE, Response

__all__ = ["PlainResponse"]

_USUAL = frozenset(
    {"Content-Type", "Content-Length", "Run-Id", "Cache-Control", "X-Content-Type-Options"}
)


class PlainResponse(Response):
    """gunicorn's response; the headers of a call are looked at all at once."""

    def process_headers(self, headers: list[tuple[str, str]]) -> None:
        """Called by gunicorn with what the application wants to send."""
        fields = dict(headers)
        if (
            _USUAL.issuperset(fields)
            and len(fields) == len(headers)
            and HEADER_VALUE_RE.fullmatch("".join(fields.values()))
        ):
            self.headers = headers
            length = fields.get("Content-Length")
            self.response_length = None if length is None else int(length)
        else:
            super().process_headers(headers)

    def default_headers(self) -> list[str]:
        """Called by gunicorn for the first lines of the head."""
        if self.upgrade or self.chunked:
            lines: list[str] = super().default_headers()
            return lines
        major, minor = self.req.version
        return [
            f"HTTP/{major}.{minor} {self.status}\r\n"
            f"Server: {self.version}\r\n"
            f"Date: {_date(int(time.time()))}\r\n"
            f"Connection: {'close' if self.should_close() else 'keep-alive'}\r\n"
        ]


_date: Callable[[int], Any] = lru_cache(maxsize=2)(lambda second: formatdate(second, usegmt=True))
