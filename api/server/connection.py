"""One client's connection, which knows what its greenlet waits for, and since when."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
import time
from enum import IntEnum
from typing import Any

import gevent
from gunicorn.http import errors as refused
from gunicorn.http.body import Body

from callboard.errors import BadRequest

__all__ = ["WORKING", "Connection", "Phase"]

MAX_HEAD_BYTES = 64 * 1024
MAX_HEAD_READS = 512  # a head that comes byte by byte is read anew with each of them
MAX_BODY_BYTES = 16 * 1024 * 1024  # on the wire; read and dropped where nobody wants it
FAIR_READS = 4  # reads in a row before others have their turn


class Phase(IntEnum):
    """What a connection's greenlet waits for."""

    IDLE = 0  # the first byte of the next request
    HEAD = 1  # the rest of a head
    BODY = 2  # the rest of a body
    SENDING = 3  # the client to read
    ENDING = 4  # the client to take note of the response
    WORKING = 5  # not for the client: the request is being served


IDLE, HEAD, BODY, SENDING, ENDING, WORKING = Phase


class Connection:
    """A client's connection, as gunicorn uses it; knows which phase it is in, and since when.

    The head of a response waits for what comes behind it: one packet, and the client wakes up once.
    """

    __slots__ = (
        *("_at_end", "_client", "_closed", "_head", "_interim", "_reads", "_received", "_recv"),
        *("_send", "descriptor", "ended", "key", "phase", "since", "thread"),
    )

    def __init__(self, client: Any, key: str | None) -> None:
        self._client = client
        self._recv, self._send = client.recv, client.send
        self._head = b""  # of a response
        self._interim = b""  # response, for when the body is asked for
        self._at_end = False  # nothing more comes from the client
        self._closed = False
        self._received = 0  # bytes of this head, or of this body
        self._reads = 0
        self.key = key  # of the client's address; None where that may have any number
        self.descriptor: int = client.fileno()
        self.thread = threading.get_ident()
        self.phase = HEAD
        self.since = time.monotonic()
        self.ended = False  # by the reaper

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def begin(self) -> None:
        """A head is there: the request is served from now on."""
        self.phase = WORKING
        self.since = time.monotonic()
        self._received = self._reads = 0

    def recv(self, size: int) -> bytes:
        """Read on; b"" at the end. Raises `LimitRequestHeaders` for a head without end."""
        if self.phase is WORKING:
            self.phase = BODY
        if self._interim:
            self._send_interim()
        if self._reads > FAIR_READS:
            gevent.sleep(0)
        try:
            data: bytes = self._recv(size)
        except OSError:  # it is gone, or was ended
            data = b""
        self._received += len(data)
        self._reads += 1
        if self.phase is BODY:
            self.phase = WORKING
            if self._received > MAX_BODY_BYTES:
                data = b""
        elif self.phase is IDLE:
            self.phase = HEAD
            self.since = time.monotonic()
        elif self._received > MAX_HEAD_BYTES or self._reads > MAX_HEAD_READS:
            raise refused.LimitRequestHeaders("all headers")
        self._at_end = not data
        return data

    def send(self, data: bytes) -> int:
        """Called by gunicorn for ``100 Continue``: kept until the body is wanted."""
        self._interim = data
        return len(data)

    def _send_interim(self) -> None:
        data, self._interim = self._interim, b""
        self._client.sendall(data)

    def sendall(self, data: bytes) -> None:
        """Send it, or keep it where it is a head."""
        head, self._head = self._head, b""
        if not head and data.startswith(b"HTTP/1.") and data.endswith(b"\r\n\r\n"):
            self._head = data
            return
        data = head + data
        phase, self.phase, self.since = self.phase, SENDING, time.monotonic()
        try:
            sent = self._send(data)  # gevent's sendall asks for the buffer's size each time
            if sent < len(data):
                self._client.sendall(data[sent:])
        except OSError as error:  # it is gone, or was ended
            raise BrokenPipeError(errno.EPIPE, "The client reads no more") from error
        self.phase = phase

    def flush(self) -> None:
        """Send what was kept."""
        if self._head:
            self.sendall(b"")

    def finish(self, req: Any) -> bool:
        """The response is complete. Whether another request can come: the body is at its end."""
        body: Body = req.body
        self.flush()
        if self._interim:  # whether the body comes now is the client's choice
            return False
        if getattr(body.reader, "length", 1):  # not read to its end
            self.since = time.monotonic()
            _drop(body)
        if body.failed or self._at_end:
            return False
        self.phase = HEAD if req.unreader.buf.tell() else IDLE  # some of the next is there
        self.since = time.monotonic()
        self._received = self._reads = 0
        return True

    def shutdown(self, how: int) -> None:
        """As a socket's."""
        self._client.shutdown(how)

    def close(self) -> None:
        """Close it when the client has the response.

        What it still sends is read and dropped until then: closed at once, the connection would be
        reset, and the response lost with it (RFC 9112 s. 9.6).
        """
        if self._closed:
            return
        self._closed = True
        try:
            self.flush()
            if not self._at_end and not self.ended:
                self._linger()
        except OSError:
            pass  # it is gone
        finally:
            self._client.close()

    def _linger(self) -> None:
        self.phase = ENDING
        self.since = time.monotonic()
        self._client.shutdown(socket.SHUT_WR)
        left = MAX_BODY_BYTES - self._received
        while left > 0 and (data := self._recv(65536)):
            left -= len(data)
            gevent.sleep(0)

    def end(self) -> None:
        """The client took too long, or others need the place: whoever waits for it reads the end.

        A request that came in this moment is still read, and answered.
        """
        self.ended = True
        how = socket.SHUT_RDWR if self.phase in (SENDING, ENDING) else socket.SHUT_RD
        with contextlib.suppress(OSError):  # it is gone
            self._client.shutdown(how)


def _drop(body: Body) -> None:
    """Read what nobody wanted of a body; where that fails, ``body.failed`` says so."""
    with contextlib.suppress(BadRequest):
        while body.read(65536):
            pass
