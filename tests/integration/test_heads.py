"""The bytes that have fooled servers, and what this one makes of them.

What matters is that a request ends where everybody else thinks that it ends: behind each of these
comes another request, and where the first one is refused that one is not served. They are written
down so that whatever parses heads and chunks is held to them.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from small_server import serving, told

APPLICATION = """
from callboard.errors import BadRequest

def app(environ, start_response):
    try:
        body = environ["wsgi.input"].read() if environ["PATH_INFO"] != "/unread" else b""
    except BadRequest:
        start_response("400 Bad Request", [("Content-Length", "0")])
        return [b""]
    answer = (environ["PATH_INFO"] + ":").encode("latin-1") + body
    start_response("200 OK", [("Content-Length", str(len(answer)))])
    return [answer]
"""
SETTINGS = """
from api.server import ApiWorker as worker_class, connections, worker

connections.HEAD_SECONDS = connections.BODY_SECONDS = 1.0
connections.SEND_SECONDS = connections.LINGER_SECONDS = 1.0
worker.TICK_SECONDS = 0.1
keepalive = 1
worker_connections = 1000
limit_request_field_size = 8192 + 64
control_socket_disable = True

def post_worker_init(worker):
    worker.watch(per_address=None, hung_up=lambda threads: None)
"""
BEHIND = b"GET /behind HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nHost: x\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
CODING = b"Transfer-Encoding: chunked"
CHUNKED = POST + CODING + b"\r\n\r\n"


def _line(name_and_value: bytes) -> bytes:
    return GET + name_and_value + b"\r\n\r\n"


def _target(target: bytes, version: bytes = b"HTTP/1.1") -> bytes:
    return b"GET " + target + b" " + version + b"\r\nHost: x\r\n\r\n"


def _host(value: bytes) -> bytes:
    return b"GET / HTTP/1.1\r\nHost: " + value + b"\r\n\r\n"


def _length(value: bytes) -> bytes:
    return POST + b"Content-Length: " + value + b"\r\n\r\nhello"


def _coding(lines: bytes) -> bytes:
    return POST + lines + b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n"


def _size(line: bytes) -> bytes:
    return CHUNKED + line + b"\r\nhello\r\n0\r\n\r\n"


REFUSED: dict[str, tuple[int, bytes]] = {
    # lines
    "bare LF behind a header": (400, GET + b"X: a\nTransfer-Encoding: chunked\r\n\r\n"),
    "bare LF behind the request line": (400, b"GET / HTTP/1.1\nHost: x\r\n\r\n"),
    "bare LF everywhere": (400, b"GET / HTTP/1.1\nHost: x\n\n"),
    "bare LF at the end of the head": (400, GET + b"\n\r\n"),
    "bare CR in a value": (400, _line(b"X: a\rTransfer-Encoding: chunked")),
    "bare CR in a name": (400, _line(b"X\r: a")),
    "bare CR in the request line": (400, _target(b"/\r")),
    "bare CR as the end of a line": (400, GET + b"X: a\rY: b\r\n\r\n"),
    "folded": (400, _line(b"X: a\r\n b")),
    "folded by a tab": (400, _line(b"X: a\r\n\tb")),
    "folded Transfer-Encoding": (400, _line(b"Transfer-Encoding:\r\n chunked")),
    "first header line is folded": (400, b"GET / HTTP/1.1\r\n Host: x\r\n\r\n"),
    "two empty lines before": (400, b"\r\n\r\n" + GET + b"\r\n"),
    # names and values
    "NUL in a value": (400, _line(b"X: a\0b")),
    "NUL in a name": (400, _line(b"X\0: a")),
    "control byte in a value": (400, _line(b"X: a\x01b")),
    "control byte in a name": (400, _line(b"X\x01: a")),
    "DEL in a value": (400, _line(b"X: a\x7fb")),
    "8 bits in a name": (400, _line(b"X\xdf: a")),
    "space before the colon": (400, _line(b"Content-Length : 5")),
    "tab before the colon": (400, _line(b"Content-Length\t: 5")),
    "space before the name": (400, GET + b"X: a\r\n Content-Length: 5\r\n\r\n"),
    "space in a name": (400, _line(b"Content Length: 5")),
    "empty name": (400, _line(b": a")),
    "no colon": (400, _line(b"Content-Length")),
    "delimiter in a name": (400, _line(b"Content(Length): 5")),
    "vertical tab before a value": (400, _line(b"Transfer-Encoding:\x0bchunked")),
    # Host
    "no Host": (400, b"GET / HTTP/1.1\r\n\r\n"),
    "two Hosts": (400, GET + b"Host: y\r\n\r\n"),
    "the same Host twice": (400, GET + b"Host: x\r\n\r\n"),
    "empty Host": (400, _host(b"")),
    "Host with a path": (400, _host(b"x/y")),
    "Host with a user": (400, _host(b"a@x")),
    "Host with a space": (400, _host(b"x y")),
    "list of Hosts": (400, _host(b"x, y")),
    "Host with a port that is none": (400, _host(b"x:http")),
    "Host with two ports": (400, _host(b"x:1:2")),
    "Host of 8 bits": (400, _host(b"\xff")),
    "Host too long": (400, _host(b"x" * 300)),
    "no Host in absolute form": (400, b"GET http://x/ HTTP/1.1\r\n\r\n"),
    # Content-Length
    "two Content-Lengths": (400, POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
    "Content-Length twice": (400, POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"),
    "negative Content-Length": (400, _length(b"-5")),
    "Content-Length +5": (400, _length(b"+5")),
    "Content-Length 0x5": (400, _length(b"0x5")),
    "Content-Length 5_0": (400, _length(b"5_0")),
    "list of Content-Lengths": (400, _length(b"5, 5")),
    "Content-Length 5.0": (400, _length(b"5.0")),
    "Content-Length 5 5": (400, _length(b"5 5")),
    "superscript Content-Length": (400, _length(b"\xb2")),
    "empty Content-Length": (400, _length(b"")),
    "Content-Length of 5000 digits": (400, _length(b"9" * 5000)),
    # Transfer-Encoding
    "Content-Length and chunked": (400, _coding(b"Content-Length: 5\r\n" + CODING)),
    "chunked and Content-Length": (400, _coding(CODING + b"\r\nContent-Length: 5")),
    "chunked twice": (400, _coding(b"Transfer-Encoding: chunked, chunked")),
    "chunked in two lines": (400, _coding(CODING + b"\r\n" + CODING)),
    "chunked and another": (400, _coding(b"Transfer-Encoding: chunked, gzip")),
    "another line behind chunked": (501, _coding(CODING + b"\r\nTransfer-Encoding: x")),
    "chunked, identity": (400, _coding(b"Transfer-Encoding: chunked, identity")),
    "identity, chunked": (501, _coding(b"Transfer-Encoding: identity, chunked")),
    "identity": (400, _coding(b"Transfer-Encoding: identity")),
    "gzip, chunked": (501, _coding(b"Transfer-Encoding: gzip, chunked")),
    "gzip": (400, _coding(b"Transfer-Encoding: gzip")),
    "xchunked": (501, _coding(b"Transfer-Encoding: xchunked")),
    "quoted chunked": (501, _coding(b'Transfer-Encoding: "chunked"')),
    "chunked with a parameter": (501, _coding(b"Transfer-Encoding: chunked;q=1")),
    "empty Transfer-Encoding": (501, _coding(b"Transfer-Encoding:")),
    "chunked with an empty member": (501, _coding(b"Transfer-Encoding: , chunked")),
    "chunked in HTTP/1.0": (400, _coding(b"Transfer-Encoding: chunked").replace(b"/1.1", b"/1.0")),
    # request lines
    "HTTP/0.9": (400, b"GET /\r\n\r\n"),
    "HTTP/2 preface": (400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "HTTP/2.0": (505, _target(b"/", b"HTTP/2.0")),
    "HTTP/1.2": (505, _target(b"/", b"HTTP/1.2")),
    "HTTP/0.9 by name": (505, _target(b"/", b"HTTP/0.9")),
    "HTTP/1.10": (400, _target(b"/", b"HTTP/1.10")),
    "http/1.1": (400, _target(b"/", b"http/1.1")),
    "no version": (400, _target(b"/", b"")),
    "space in the target": (400, _target(b"/a b")),
    "two spaces": (400, b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n"),
    "tabs for spaces": (400, b"GET\t/\tHTTP/1.1\r\nHost: x\r\n\r\n"),
    "space behind the version": (400, _target(b"/", b"HTTP/1.1 ")),
    "8 bits in the target": (400, _target(b"/\xff")),
    "NUL in the target": (400, _target(b"/\0")),
    "authority form": (400, _target(b"x:80")),
    "asterisk form": (400, _target(b"*")),
    "relative target": (400, _target(b"api/actions")),
    "method in small letters": (400, b"get / HTTP/1.1\r\nHost: x\r\n\r\n"),
    "method that is no token": (400, b"G@T / HTTP/1.1\r\nHost: x\r\n\r\n"),
    "TLS": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
    # too much
    "request line too long": (414, _target(b"/" + b"a" * 9000)),
    "header line too long": (431, _line(b"X: " + b"a" * 9000)),
    "too many headers": (431, GET + b"X: a\r\n" * 101 + b"\r\n"),
    "head without end": (431, GET + b"X: " + b"a" * 100_000),
    "Expect": (417, _line(b"Expect: more")),
}  # fmt: skip

# The application is told while it reads the body; nothing behind it is served either.
REFUSED_BODIES: dict[str, bytes] = {
    "size +5": _size(b"+5"),
    "size -5": _size(b"-5"),
    "size 0x5": _size(b"0x5"),
    "size 0_5": _size(b"0_5"),
    "empty size": _size(b""),
    "size of no digits": _size(b"five"),
    "space before the size": _size(b" 5"),
    "space behind the size": _size(b"5 "),
    "tab behind the size": _size(b"5\t"),
    "NUL behind the size": _size(b"5\0"),
    "8 bits in the size": _size(b"\xb25"),
    "bare LF behind the size": CHUNKED + b"5\nhello\r\n0\r\n\r\n",
    "bare CR behind the size": CHUNKED + b"5\rhello\r\n0\r\n\r\n",
    "bare LF in an extension": _size(b"5;a\nb"),
    "bare CR in an extension": _size(b"5;a\rb"),
    "NUL in an extension": _size(b"5;a=\0"),
    "extension without a name": _size(b"5;=a"),
    "extension too long": _size(b"5;a=" + b"a" * 100_000),
    "size line without end": CHUNKED + b"0" * 100_000,
    "huge size": _size(b"f" * 30),
    "size of 64 bits and a bit": _size(b"10000000000000005"),
    "data longer than the size": CHUNKED + b"3\r\nhello\r\n0\r\n\r\n",
    "data shorter than the size": CHUNKED + b"7\r\nhello\r\n0\r\n\r\n",
    "bare LF behind the data": CHUNKED + b"5\r\nhello\n0\r\n\r\n",
    "no end of the data": CHUNKED + b"5\r\nhello0\r\n\r\n",
    "bare LF behind the last chunk": CHUNKED + b"5\r\nhello\r\n0\n\n",
    "bare LF behind a trailer": CHUNKED + b"0\r\nX: a\n\r\n\r\n",
    "trailer without a colon": CHUNKED + b"0\r\nX\r\n\r\n",
    "trailer that frames": CHUNKED + b"0\r\nContent-Length: 5\r\n\r\n",
    "trailer Host": CHUNKED + b"0\r\nHost: y\r\n\r\n",
    "trailer Authorization": CHUNKED + b"0\r\nAuthorization: Bearer x\r\n\r\n",
    "folded trailer": CHUNKED + b"0\r\nX: a\r\n b\r\n\r\n",
    "trailers too long": CHUNKED + b"0\r\n" + b"X: " + b"a" * 100_000 + b"\r\n\r\n",
}

SERVED: dict[str, tuple[bytes, bytes]] = {
    "empty line before": (b"/:", b"\r\n" + GET + b"\r\n"),
    "HTTP/1.0 without a Host": (b"/:", b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
    "Host with a port": (b"/:", _host(b"api_1.example-x.test:8000")),
    "Host of IPv6": (b"/:", _host(b"[::1]:8000")),
    "absolute form": (b"/a:", _target(b"http://y/a")),
    "two slashes": (b"//api/actions:", _target(b"//api/actions")),
    "NUL as %00": (b"/a\0:", _target(b"/a%00")),
    "no UTF-8 as %ff": (b"/\xff:", _target(b"/%ff")),
    "line break as %0d%0a": (b"/\r\nX: a:", _target(b"/%0d%0aX:%20a")),
    "8 bits in a value": (b"/:", _line(b"X: \xff")),
    "empty value": (b"/:", _line(b"X:")),
    "Content-Length 005": (b"/:hello", _length(b"005")),
    "name with an underscore": (b"/:", _line(b"Content_Length: 5")),
    "Transfer_Encoding": (b"/:hello", _length(b"5\r\nTransfer_Encoding: chunked")),
    "CHUNKED": (b"/:hello", _coding(b"transfer-ENCODING: CHUNKED")),
    "size 005": (b"/:hello", _size(b"005")),
    "extension": (b"/:hello", _size(b'5 ; a="b;c" ;d')),
    "trailers": (b"/:hello", CHUNKED + b"5\r\nhello\r\n0\r\nX: a\r\nY: b\r\n\r\n"),
    "unread chunks": (b"/unread:", _size(b"5").replace(b" / ", b" /unread ")),
}  # fmt: skip


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[bytes], bytes]]:
    """What a server answers to these bytes and to a request behind them; all are sent at once."""
    folder = tmp_path_factory.mktemp("heads")
    unread = [one.replace(b"POST / ", b"POST /unread ", 1) for one in REFUSED_BODIES.values()]
    everything = [
        *(sent for _, sent in REFUSED.values()),
        *REFUSED_BODIES.values(),
        *unread,
        *(sent for _, sent in SERVED.values()),
    ]
    with serving(folder, APPLICATION, SETTINGS) as port, ExitStack() as opened:
        connections = {sent: opened.enter_context(_sent(port, sent)) for sent in everything}
        received = {sent: told(connection) for sent, connection in connections.items()}
        yield received.__getitem__
    _require_quiet(folder / "log")


def _sent(port: int, sent: bytes) -> closing[socket.socket]:
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)  # it does close
    connection.sendall(sent + BEHIND)
    return closing(connection)


def _require_quiet(log: Path) -> None:
    """Nothing of this is an error of the server's."""
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize("name", REFUSED)
def test_a_head_is_refused_and_nothing_behind_it_is_served(answers, name):
    status, sent = REFUSED[name]
    head, _, body = answers(sent).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\nConnection: close" in head
    assert json.loads(body)["success"] is False  # one envelope, and no second response


@pytest.mark.parametrize("name", REFUSED_BODIES)
def test_a_body_is_refused_and_nothing_behind_it_is_served(answers, name):
    answer = answers(REFUSED_BODIES[name])
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("name", REFUSED_BODIES)
def test_nor_behind_a_body_that_nobody_reads(answers, name):
    answer = answers(REFUSED_BODIES[name].replace(b"POST / ", b"POST /unread ", 1))
    assert answer.endswith(b"/unread:")


@pytest.mark.parametrize("name", SERVED)
def test_what_is_well_formed_is_served_and_what_is_behind_it_too(answers, name):
    answer, sent = SERVED[name]
    received = answers(sent)
    assert received.count(b" 200 OK\r\n") == received.count(b"HTTP/1.") == 2
    assert received.split(b"\r\n\r\n")[1].startswith(answer + b"HTTP/1.1")
    assert received.endswith(b"/behind:")
