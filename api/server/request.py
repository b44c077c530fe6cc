"""A request, as the server hands it on: a head of the usual form is read in one step.

gunicorn reads a head line by line, in Python. Nearly all have one plain form, which is a part of
what gunicorn takes and means the same to it; a regular expression reads that in a third of the
time. Every other head, and so every one that is to be refused, is gunicorn's to read.
"""

from __future__ import annotations

import io
import re
from functools import lru_cache
from typing import Any, NamedTuple

from gunicorn.http.body import Body, LengthReader
from gunicorn.http.message import Request
from gunicorn.http.unreader import Unreader

from .heads import HOST

__all__ = ["PlainRequest"]

_HEAD = re.compile(
    rb"(DELETE|GET|HEAD|OPTIONS|PATCH|POST|PUT) "
    rb"(/(?!/)[!\"$->@-~]*+)(?:\?([!\"$-~]*+))? HTTP/1\.1\r\n"  # no fragment, not `//`
    rb"((?:[0-9A-Za-z-]++:[\t -~\x80-\xff]*+\r\n)++)\r\n"
)
_GUNICORNS = frozenset({"EXPECT", "TRANSFER-ENCODING", "UPGRADE"})
_LENGTH = re.compile(r"[0-9]{1,9}")


class Limits(NamedTuple):
    """What gunicorn's settings say about heads: each look at one of them costs 0.5 us."""

    line: int  # bytes
    field: int  # bytes; here of the whole head
    fields: int
    scheme: str


@lru_cache
def _limits(cfg: Any) -> Limits:
    return Limits(
        line=cfg.limit_request_line,
        field=0 if cfg.secure_scheme_headers else cfg.limit_request_field_size,
        fields=cfg.limit_request_fields,
        scheme="https" if cfg.is_ssl else "http",
    )


class Whole(io.BytesIO):
    """A body that came with its head."""

    failed = False
    reader = LengthReader(Unreader(), 0)  # nothing has still to be read from the client


class PlainRequest(Request):
    """gunicorn's request."""

    # What all heads of the usual form have in common
    version = (1, 1)
    fragment = ""
    trailers: Any = ()
    must_close = False
    proxy_protocol_info: Any = None
    is_usual = False

    def __init__(self, cfg: Any, unreader: Unreader, peer: Any, number: int) -> None:
        """Read the head of the client's request ``number``; raises StopIteration if none comes."""
        data = unreader.read()
        if not data:
            raise StopIteration
        if not self._read(cfg, unreader, data):
            unreader.unread(data)
            super().__init__(cfg, unreader, peer, number)
            return
        self.is_usual = True
        self.cfg, self.unreader, self.req_number = cfg, unreader, number
        self.peer_addr = self.remote_addr = peer

    def _read(self, cfg: Any, unreader: Unreader, data: bytes) -> bool:
        """Read the head, if it is of the usual form and far from all limits."""
        head, limits = _HEAD.match(data), _limits(cfg)
        if head is None or head.end() > limits.field or head.start(4) > limits.line:
            return False
        lines = head[4].decode("latin-1").split("\r\n")
        parts = [line.partition(":") for line in lines[:-1]]
        self.headers = [(name.upper(), value.strip(" \t")) for name, _, value in parts]
        fields = dict(self.headers)
        length = fields.get("CONTENT-LENGTH", "0")
        if (
            not len(fields) == len(parts) <= limits.fields  # each name once
            or not fields.keys().isdisjoint(_GUNICORNS)
            or not HOST.fullmatch(fields.get("HOST", ""))
            or not _LENGTH.fullmatch(length)
        ):
            return False
        self.scheme = limits.scheme
        self.method, self.path = head[1].decode(), head[2].decode()
        self.query = (head[3] or b"").decode()
        self.uri = f"{self.path}?{self.query}" if head[3] is not None else self.path
        self.must_close = fields.get("CONNECTION", "").lower() == "close"
        self.body = _body(unreader, data[head.end() :], int(length))
        return True

    def should_close(self) -> bool:
        """Whether the client wants no further request on this connection."""
        return self.must_close or (not self.is_usual and super().should_close())


def _body(unreader: Unreader, received: bytes, length: int) -> Any:
    """A body of so many bytes, of which some have come, and perhaps some of what is behind it."""
    if len(received) < length:
        unreader.unread(received)
        return Body(LengthReader(unreader, length))
    if len(received) > length:
        unreader.unread(received[length:])
    return Whole(received[:length])
