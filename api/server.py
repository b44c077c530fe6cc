"""The HTTP server: gunicorn's gevent worker, with an end to every phase of a connection.

A connection is a greenlet. It waits for its client (for a request, for the rest of a head or of a
body, for room to send) or it works for it. One thread, the reaper, looks at all of them once a
second: whoever waits for its client for too long is ended, and where a client has hung up while
its request waits for a run, that wait is ended. There is no timer per request.

Nobody can fill the server: an address has a bounded number of connections, and where all places
are taken, those that have waited for their clients longest make room.

This module is imported before gevent has patched the standard library: it imports nothing of the
application.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import json
import re
import resource
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from email.utils import formatdate
from enum import IntEnum
from http import HTTPStatus
from typing import Any

import gevent
from gevent.monkey import get_original
from gunicorn.config import Config
from gunicorn.http import errors as refused
from gunicorn.http.body import Body, ChunkedReader
from gunicorn.workers.ggevent import GeventWorker

from callboard.errors import BadRequest
from callboard.processes.threads import supervise

__all__ = ["ApiWorker", "Connection", "Connections", "Phase", "raise_file_limit", "response"]

HEAD_SECONDS = 10.0  # from the first byte of a head to its last; also from a connect to the first
BODY_SECONDS = 30.0  # from the end of the head
SEND_SECONDS = 30.0  # for a piece of a response
LINGER_SECONDS = 10.0  # for what is still under way when the response is sent
MAX_HEAD_BYTES = 64 * 1024
MAX_HEAD_READS = 512  # a head that comes byte by byte is read anew with each of them
MAX_BODY_BYTES = 16 * 1024 * 1024  # on the wire; read and dropped where nobody wants it
MAX_TRAILER_BYTES = 8 * 1024
FAIR_READS = 4  # reads in a row before others have their turn
TICK_SECONDS = 1.0
SPARE = 256  # connections above the limit that are there to be told so
OTHER_FILES = 512  # that a process has open besides
MADE_ROOM = 1 / 40  # of all places: so many are cleared at once


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


class Connections:
    """All connections of this process."""

    def __init__(self, capacity: int, keepalive: float) -> None:
        self.capacity = capacity
        self.per_address: int | None = None  # no bound
        head = min(HEAD_SECONDS, keepalive or HEAD_SECONDS)
        self._seconds = (
            keepalive or HEAD_SECONDS,
            head,
            BODY_SECONDS,
            SEND_SECONDS,
            LINGER_SECONDS,
        )
        self._open: dict[Connection, None] = {}
        self._ended = 0  # of these: they leave
        self._by_address: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._open)

    def add(self, connection: Connection) -> HTTPStatus | None:
        """Take it in, if need be in the place of one that waits for its client.

        The status to refuse it with where it is one too many.
        """
        self._open[connection] = None
        if connection.key is not None:
            self._by_address[connection.key] += 1
            if self.per_address and self._by_address[connection.key] > self.per_address:
                return HTTPStatus.TOO_MANY_REQUESTS
        if len(self._open) - self._ended > self.capacity and not self._make_room(
            besides=connection
        ):
            return HTTPStatus.SERVICE_UNAVAILABLE
        return None

    def remove(self, connection: Connection) -> None:
        """It is closed."""
        del self._open[connection]
        self._ended -= connection.ended
        if (key := connection.key) is not None:
            self._by_address[key] -= 1
            if not self._by_address[key]:
                del self._by_address[key]

    def _make_room(self, besides: Connection | None = None) -> bool:
        """End those that have waited for their clients longest; whether there were any."""
        waiting = [
            one
            for one in self._open
            if one.phase is not WORKING and not one.ended and one is not besides
        ]
        waiting.sort(key=lambda one: one.since)
        for connection in waiting[: max(1, int(self.capacity * MADE_ROOM))]:
            self._end(connection)
        return bool(waiting)

    def _end(self, connection: Connection) -> None:
        connection.end()
        self._ended += 1

    def end_overdue(self) -> None:
        """End those that have waited for their clients too long."""
        now = time.monotonic()
        for one in list(self._open):
            if one.ended or one.phase is WORKING:
                continue
            if now - one.since > self._seconds[one.phase]:
                self._end(one)
        if len(self._open) >= self.capacity + SPARE:  # nobody more is let in, to make room
            self._make_room()

    def hung_up(self) -> set[int]:
        """The threads that serve a request whose client is gone."""
        serving = {
            one.descriptor: one for one in self._open if one.phase is WORKING and not one.ended
        }
        poll = _poll()
        for descriptor in serving:
            poll.register(descriptor, _GONE)
        return {serving[descriptor].thread for descriptor, _ in poll.poll(0)}


_poll = get_original("select", "poll")  # gevent's own would watch each by itself
_GONE = getattr(select, "POLLRDHUP", 0)  # besides an error, and an end in both directions


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


def _require_chunked_alone(headers: list[tuple[str, str]]) -> None:
    """Raises `UnsupportedTransferCoding` for ``gzip, chunked``, which nobody would unpack."""
    for name, value in headers:
        if name == "TRANSFER-ENCODING" and value.lower() != "chunked":
            raise refused.UnsupportedTransferCoding("not chunked alone")


_HOST = re.compile(r"(?:[0-9A-Za-z._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")


def _require_version_and_host(req: Any) -> None:
    """Raises `InvalidHTTPVersion` above 1.1, `InvalidHost` without a host (HTTP/1.0 needs none).

    Several are refused with the head.
    """
    if req.version > (1, 1):
        raise refused.InvalidHTTPVersion(req.version)
    for name, value in req.headers:
        if name == "HOST":
            if not _HOST.fullmatch(value):
                raise InvalidHost
            return
    if req.version == (1, 1):
        raise InvalidHost


def _drop(body: Body) -> None:
    """Read what nobody wanted of a body; where that fails, ``body.failed`` says so."""
    with contextlib.suppress(BadRequest):
        while body.read(65536):
            pass


class PlainConfig(Config):
    """gunicorn's settings as plain attributes: by itself it looks each up anew, 30 times a request.

    What a setting is no more than a part of stays a property: `is_ssl`.
    """

    def __init__(self, settings: Config) -> None:
        values = {name: setting.get() for name, setting in settings.settings.items()}
        self.__dict__.update(vars(settings) | values)


class ApiWorker(GeventWorker):
    """gunicorn's worker of the API."""

    cfg: Config

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.connections = Connections(self.worker_connections, self.cfg.keepalive)
        self.worker_connections += SPARE

    def watch(self, *, per_address: int | None, hung_up: Callable[[set[int]], object]) -> None:
        """Start the reaper; ``hung_up`` is told which threads serve a client that is gone."""
        self.connections.per_address = per_address

        def reap() -> None:
            while self.alive or len(self.connections):
                self.connections.end_overdue()
                if gone := self.connections.hung_up():
                    hung_up(gone)
                time.sleep(TICK_SECONDS)

        supervise("reaper", reap, threading.Event())

    # Called by gunicorn

    def init_process(self) -> None:
        """In the new process, before all else."""
        self.cfg = self.log.cfg = PlainConfig(self.cfg)
        super().init_process()

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """A connection, from its first byte to its last."""
        connection = Connection(client, _address_key(addr))
        status = self.connections.add(connection)
        try:
            if status:
                connection.sendall(response(status, *_TOO_MANY[status], Retry_After="2"))
                connection.close()
            else:
                super().handle(listener, connection, addr)
        finally:
            self.connections.remove(connection)

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> None:
        """A request, when its head is there; raises StopIteration if it was the last one."""
        sock.begin()
        _require_version_and_host(req)
        if isinstance(req.body.reader, ChunkedReader):
            _require_chunked_alone(req.headers)
            req.body.reader = Chunks(req.body.reader)
        super().handle_request(listener_name, req, sock, addr)
        if not sock.finish(req):
            raise StopIteration

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """A request that cannot be served; gunicorn closes the connection."""
        status, code, text = _refusal(exc)
        if status is HTTPStatus.INTERNAL_SERVER_ERROR:
            self.log.error("Request failed: %s", type(exc).__name__, exc_info=exc)
        else:  # without the exception's text: it quotes what was sent
            self.log.warning("Request refused: %d, %s", status, type(exc).__name__)
        with contextlib.suppress(OSError):  # it is gone
            client.sendall(response(status, code, text))

    def timeout_ctx(self) -> Any:
        """Bounds the wait for a request: the reaper does."""
        return _NO_TIMER


_NO_TIMER = contextlib.nullcontext()


def _address_key(addr: Any) -> str | None:
    """What counts as one address; None for this machine's own: a proxy on it has many clients."""
    if not isinstance(addr, tuple):
        return None  # a unix socket
    address = ipaddress.ip_address(addr[0].partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:  # the least that one subscriber is given
            return None if address.is_loopback else address.exploded[:19]
        address = address.ipv4_mapped
    return None if address.is_loopback else str(address)


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


def _refusal(error: BaseException) -> tuple[HTTPStatus, str, str]:
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


_TOO_MANY = {
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


def raise_file_limit(connections: int) -> None:
    """Let the process have so many connections, as far as the system lets it.

    A common limit is 1,024 files, which a process may raise by itself.
    """
    needed = connections + SPARE + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
