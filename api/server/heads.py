"""What gunicorn's parser lets through, and the API does not."""

from __future__ import annotations

import re
from typing import Any

from gunicorn.http import errors as refused
from gunicorn.http.body import ChunkedReader

from callboard.errors import BadRequest

__all__ = ["HOST", "Chunks", "InvalidHost", "require_chunked_alone", "require_version_and_host"]

MAX_TRAILER_BYTES = 8 * 1024


class InvalidHost(refused.ParseException):
    """A request does not say which host it is for, or not as a name or address and a port."""


class Chunks:
    """A body in chunks, as gunicorn reads it; what is wrong with it is the client's mistake."""

    def __init__(self, reader: ChunkedReader) -> None:
        reader.limit_trailer_section = MAX_TRAILER_BYTES
        self._read = reader.read

    def read(self, size: int) -> bytes:
        """Raises `BadRequest`."""
        try:
            data: bytes = self._read(size)
        except (refused.ParseException, refused.NoMoreData) as error:
            raise BadRequest("The body's chunks are not well-formed, or not all there") from error
        return data


def require_chunked_alone(headers: list[tuple[str, str]]) -> None:
    """Raises `UnsupportedTransferCoding` for ``gzip, chunked``, which nobody would unpack."""
    for name, value in headers:
        if name == "TRANSFER-ENCODING" and value.lower() != "chunked":
            raise refused.UnsupportedTransferCoding("not chunked alone")


HOST = re.compile(r"(?:[0-9A-Za-z._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")


def require_version_and_host(req: Any) -> None:
    """Raises `InvalidHTTPVersion` above 1.1, `InvalidHost` without a host (HTTP/1.0 needs none).

    Several are refused with the head.
    """
    if req.version > (1, 1):
        raise refused.InvalidHTTPVersion(req.version)
    for name, value in req.headers:
        if name == "HOST":
            if not HOST.fullmatch(value):
                raise InvalidHost
            return
    if req.version == (1, 1):
        raise InvalidHost
