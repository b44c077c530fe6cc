"""An HTTP client that keeps nothing and takes no more than it was told to.

For requests that a process makes for many callers, and for servers that nobody vouches for:

- each exchange has a connection of its own: what a server sends after a response would be taken
  for the response to the next caller;
- no cookie is kept, no proxy, netrc or certificate of the environment is used, no redirect is
  followed;
- ``deadline`` bounds the whole exchange: the name, the connection, the request, the head and the
  body, however slowly they come;
- the body is taken as it is on the wire: ``Accept-Encoding: identity`` is sent, a body in any
  other encoding is refused, so ``max_bytes`` is what ends up in memory. A head has at most
  100 KiB (httpcore's bound).

Any part of Callboard may use it: one `BoundedClient` for each process, and::

    response = client.send(client.build("GET", url), deadline=time.monotonic() + 3)

On an event loop: one `AsyncBoundedClient`, whose `send` is awaited.
"""

from __future__ import annotations

import asyncio
import queue
import re
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpcore
import httpx

__all__ = ["AsyncBoundedClient", "BoundedClient"]

CONNECT_SECONDS = 5.0  # for one address of the host; on an event loop for all, which are raced
PIECE_BYTES = 16 * 1024  # written at once: less than a socket takes whenever it takes something

_deadline: ContextVar[float] = ContextVar("deadline")  # time.monotonic seconds
_CHARSETS = re.compile(
    r"utf-?(8|16|32)([lb]e)?|(us-)?ascii|iso[-_]?8859-?\d+|latin-?\d|(windows-|cp)\d+|koi8-[ru]"
    r"|shift[-_]jis|euc[-_](jp|kr)|gb(k|2312|18030)|big5",
    re.IGNORECASE,
)


class _Bounded:
    """Nothing of one exchange is there for the next."""

    _client: httpx.Client | httpx.AsyncClient

    def __init__(self, max_bytes: int) -> None:
        """``max_bytes``: of a response's body."""
        self._max_bytes = max_bytes

    def build(self, method: str, url: str, **options: Any) -> httpx.Request:
        """A request; ``options`` are httpx's (``params``, ``json``, ``headers``, ...)."""
        return self._client.build_request(method, url, **options)

    def _prepare(self, request: httpx.Request, deadline: float) -> float:
        """Make the request as is said above; the seconds that are left for it."""
        request.headers["Accept-Encoding"] = "identity"
        request.headers["Connection"] = "close"
        left = deadline - time.monotonic()
        if left <= 0:
            raise httpx.ReadTimeout("no time is left", request=request)
        bounds = httpx.Timeout(left, connect=min(left, CONNECT_SECONDS))
        request.extensions = {**request.extensions, "timeout": bounds.as_dict()}
        return left

    def _take(self, response: httpx.Response, body: bytearray, chunk: bytes) -> None:
        """Add a further piece of the body."""
        if encodings := _encodings(response):
            raise httpx.DecodingError(
                f"the body is encoded ({encodings:.40}), though identity was asked for"
            )
        body += chunk
        if len(body) > self._max_bytes:
            most = f"{self._max_bytes / 2**20:.4g} MiB"
            raise httpx.RequestError(f"the response is larger than {most}")


def _options() -> dict[str, Any]:
    """Of httpx's clients."""
    return {
        "cookies": CookieJar(DefaultCookiePolicy(allowed_domains=())),
        "follow_redirects": False,
        "trust_env": False,
        "headers": {"User-Agent": "callboard"},
    }


class BoundedClient(_Bounded):
    """A client of plain code."""

    _client: httpx.Client

    def __init__(self, max_bytes: int) -> None:
        """``max_bytes``: of a response's body."""
        super().__init__(max_bytes)
        self._client = httpx.Client(transport=_Transport(), **_options())

    def send(self, request: httpx.Request, *, deadline: float) -> httpx.Response:
        """The whole response; nothing of the request (and its token) hangs on it.

        ``deadline``: `time.monotonic` seconds. A redirect is returned as it is, with its
        ``next_request``. Raises httpx's `RequestError`: a `TimeoutException` at the deadline,
        a `DecodingError` for a body that is encoded.
        """
        self._prepare(request, deadline)
        before = _deadline.set(deadline)
        try:
            response = self._client.send(request, stream=True)
            try:
                return _complete(response, self._read(response))
            finally:
                response.close()
        finally:
            _deadline.reset(before)

    def close(self) -> None:
        """Close connections that are still open."""
        self._client.close()

    def _read(self, response: httpx.Response) -> bytes:
        body = bytearray()
        for chunk in response.iter_raw():
            self._take(response, body, chunk)
        return bytes(body)


class AsyncBoundedClient(_Bounded):
    """A client of one event loop."""

    _client: httpx.AsyncClient

    def __init__(self, max_bytes: int) -> None:
        """``max_bytes``: of a response's body."""
        super().__init__(max_bytes)
        self._client = httpx.AsyncClient(transport=_AsyncTransport(), **_options())

    async def send(self, request: httpx.Request, *, deadline: float) -> httpx.Response:
        """As `BoundedClient.send`."""
        left = self._prepare(request, deadline)
        try:
            async with asyncio.timeout(left):
                response = await self._client.send(request, stream=True)
                try:
                    return _complete(response, await self._read(response))
                finally:
                    await response.aclose()
        except TimeoutError:
            raise httpx.ReadTimeout("no time is left", request=request) from None

    async def _read(self, response: httpx.Response) -> bytes:
        body = bytearray()
        async for chunk in response.aiter_raw():
            self._take(response, body, chunk)
        return bytes(body)


def _encodings(response: httpx.Response) -> str:
    """The content encodings, as they were sent; empty for none."""
    given = response.headers.get("content-encoding", "")
    return "" if given.strip().lower() in ("", "identity") else given


def _complete(response: httpx.Response, body: bytes) -> httpx.Response:
    headers = [
        (name, value)
        for name, value in response.headers.multi_items()
        if name not in ("content-encoding", "transfer-encoding", "content-length")
    ]
    bare = httpx.Request(response.request.method, response.request.url)
    complete = httpx.Response(response.status_code, headers=headers, content=body, request=bare)
    complete.next_request = response.next_request
    if not _CHARSETS.fullmatch(complete.charset_encoding or "utf-8"):
        complete.encoding = "utf-8"  # some of Python's codecs unpack, or take minutes
    return complete


class _Transport(httpx.BaseTransport):
    """httpx's own, with the sockets below."""

    def __init__(self) -> None:
        self._pool = httpcore.ConnectionPool(
            ssl_context=httpx.create_ssl_context(trust_env=False),
            max_connections=100,
            max_keepalive_connections=0,
            network_backend=_Backend(),
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        with _as_httpx(request):
            response = self._pool.handle_request(_as_httpcore(request))
        body = _Body(response, request)
        return httpx.Response(response.status, headers=response.headers, stream=body)

    def close(self) -> None:
        self._pool.close()


class _Body(httpx.SyncByteStream):
    """The body of a response, as it comes."""

    def __init__(self, response: httpcore.Response, request: httpx.Request) -> None:
        self._response = response
        self._request = request

    def __iter__(self) -> Iterator[bytes]:
        with _as_httpx(self._request):
            yield from self._response.iter_stream()

    def close(self) -> None:
        self._response.close()


class _AsyncTransport(httpx.AsyncBaseTransport):
    """A connection for each request: a pool's work grows with what is under way."""

    def __init__(self) -> None:
        self._ssl_context = httpx.create_ssl_context(trust_env=False)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        wanted = _as_httpcore(request)
        connection = httpcore.AsyncHTTPConnection(wanted.url.origin, self._ssl_context)
        try:
            with _as_httpx(request):
                response = await connection.handle_async_request(wanted)
        except BaseException:
            await connection.aclose()
            raise
        body = _AsyncBody(connection, response, request)
        return httpx.Response(response.status, headers=response.headers, stream=body)


class _AsyncBody(httpx.AsyncByteStream):
    """The body of a response, as it comes."""

    def __init__(
        self,
        connection: httpcore.AsyncHTTPConnection,
        response: httpcore.Response,
        request: httpx.Request,
    ) -> None:
        self._connection = connection
        self._response = response
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _as_httpx(self._request):
            async for chunk in self._response.aiter_stream():
                yield chunk

    async def aclose(self) -> None:
        await self._connection.aclose()


def _as_httpcore(request: httpx.Request) -> httpcore.Request:
    url = request.url
    return httpcore.Request(
        method=request.method,
        url=httpcore.URL(
            scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
        ),
        headers=request.headers.raw,
        content=request.stream,
        extensions=request.extensions,
    )


@contextmanager
def _as_httpx(request: httpx.Request) -> Iterator[None]:
    """httpcore's errors as httpx's, which have the same names."""
    try:
        yield
    except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError,
            httpcore.UnsupportedProtocol) as error:  # fmt: skip
        kind = getattr(httpx, type(error).__name__, httpx.RequestError)
        raise kind(str(error), request=request) from error


class _Backend(httpcore.NetworkBackend):
    """Connections each step of which ends by the deadline of the exchange."""

    def __init__(self) -> None:
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        why: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in _addresses(host, port):
            left = _left(timeout, httpcore.ConnectTimeout)
            try:
                stream = self._sockets.connect_tcp(address, port, left, None, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                why = error
            else:
                return _Stream(stream)
        raise why


class _Stream(httpcore.NetworkStream):
    """One connection."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), PIECE_BYTES):
            piece = buffer[start : start + PIECE_BYTES]
            self._stream.write(piece, _left(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = _left(timeout, httpcore.ConnectTimeout)
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, left))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _left(timeout: float | None, over: type[Exception]) -> float:
    """The seconds that a step may take; raises ``over`` if there are none."""
    left = _deadline.get() - time.monotonic()
    if left <= 0:
        raise over("no time is left")
    return left if timeout is None else min(left, timeout)


def _addresses(host: str, port: int) -> list[str]:
    """Those of a name. The resolver has no timeout of its own that we could set, so it is asked
    in a thread, which may be left behind."""
    answers: queue.SimpleQueue[list[str] | OSError] = queue.SimpleQueue()

    def ask() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            answers.put(error)
        except UnicodeError as error:
            answers.put(OSError(str(error)))
        else:
            answers.put([str(address[4][0]) for address in found])

    threading.Thread(target=ask, name="resolver", daemon=True).start()
    try:
        answer = answers.get(timeout=_left(None, httpcore.ConnectTimeout))
    except queue.Empty:
        raise httpcore.ConnectTimeout(f"{host} was not resolved in time") from None
    if isinstance(answer, OSError):
        raise httpcore.ConnectError(str(answer)) from answer
    return answer
