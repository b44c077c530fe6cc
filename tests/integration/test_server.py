"""The HTTP server by itself: gunicorn with `api.server`'s worker, a small application."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest
from small_server import serving, told

Connect = Callable[..., socket.socket]
Eventually = Callable[..., None]

PLACES = 20
APPLICATION = """
import threading

waits, left = {}, []  # thread -> what it waits for; who was let go

class Large(list):
    def __init__(self):
        super().__init__([bytes(50_000_000)])

    def close(self):
        left.append("large")

def app(environ, start_response):
    path, body = environ["PATH_INFO"], b""
    if path == "/read":
        body = environ["wsgi.input"].read()
    elif path == "/wait":
        waits[threading.get_ident()] = wait = threading.Event()
        left.append(wait.wait(20))
    elif path == "/left":
        body = str(len(left)).encode()
    elif path == "/large":
        start_response("200 OK", [])
        return Large()
    elif path == "/fail":
        raise RuntimeError("secret")
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""
SETTINGS = """
from api.server import ApiWorker as worker_class, connections, worker

connections.HEAD_SECONDS = 3.0
connections.BODY_SECONDS = 4.0
connections.SEND_SECONDS = 2.0
connections.LINGER_SECONDS = 2.0
connections.SPARE = 5
worker.TICK_SECONDS = 0.1
keepalive = 4
worker_connections = {places}
limit_request_field_size = 8192 + 64
control_socket_disable = True

def post_worker_init(worker):
    from small import waits
    def hung_up(threads):
        for thread in threads & waits.keys():
            waits.pop(thread).set()
    worker.watch(per_address=None, hung_up=hung_up)
"""


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Of a gunicorn with deadlines of seconds and 20 places."""
    folder = tmp_path_factory.mktemp("server")
    settings = SETTINGS.format(places=PLACES)
    with serving(folder, APPLICATION, settings) as port:
        yield port
    log_text = (folder / "log").read_text()
    assert "Socket error" not in log_text
    assert "secret-header" not in log_text


@pytest.fixture
def connect(port: int) -> Iterator[Connect]:
    """Open a connection and send this: ``connect(b"GET / HTTP/1.1...")``."""
    with ExitStack() as opened:

        def open_one(sent: bytes = b"", *, receive_buffer: int | None = None) -> socket.socket:
            connection = opened.enter_context(closing(socket.socket()))
            connection.settimeout(60)
            if receive_buffer:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            connection.connect(("127.0.0.1", port))
            connection.sendall(sent)
            return connection

        yield open_one


def seconds_until_end(connect: Connect, sent: bytes) -> float:
    begun = time.monotonic()
    told(connect(sent))
    return time.monotonic() - begun


def left(connect: Connect) -> int:
    """How many requests the server was let go of, or has ended."""
    return int(told(connect(b"GET /left HTTP/1.0\r\n\r\n")).rpartition(b"\r\n\r\n")[2])


GET = b"GET / HTTP/1.1\r\nHost: x\r\n"
READ = b"POST /read HTTP/1.1\r\nHost: x\r\n"


class TestEveryPhaseHasADeadline:
    @pytest.mark.parametrize(
        ("sent", "least", "most"),
        [
            pytest.param(b"", 2.5, 9, id="nothing"),
            pytest.param(b"GET /", 2.5, 9, id="request line"),
            pytest.param(GET + b"X: a", 2.5, 9, id="head"),
            pytest.param(GET + b"\r\n", 3.5, 10, id="between requests"),
            pytest.param(GET + b"\r\n" + b"GET", 2.5, 9, id="second head"),
            pytest.param(READ + b"Content-Length: 5\r\n\r\n12", 3.5, 10, id="body"),
            pytest.param(
                READ + b"Transfer-Encoding: chunked\r\n\r\n5", 3.5, 10, id="size of a chunk"
            ),
            pytest.param(READ + b"Transfer-Encoding: chunked\r\n\r\n5\r\n12", 3.5, 10, id="chunk"),
            pytest.param(
                READ + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n", 3.5, 10, id="trailer"
            ),
            pytest.param(
                b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n12",
                1.5,
                10,
                id="body nobody reads",
            ),
            pytest.param(
                b"POST / HTTP/1.0\r\nContent-Length: 5\r\n\r\n12", 0, 10, id="the same, HTTP/1.0"
            ),
        ],
    )
    def test_who_sends_no_more_is_let_go(
        self, connect: Connect, sent: bytes, least: float, most: float
    ) -> None:
        assert least < seconds_until_end(connect, sent) < most

    @pytest.mark.parametrize(
        "begin", [GET + b"X: ", READ + b"Content-Length: 900\r\n\r\n"], ids=["head", "body"]
    )
    def test_who_dribbles_is_let_go(self, connect: Connect, begin: bytes) -> None:
        connection = connect(begin)
        connection.settimeout(0.05)
        begun = time.monotonic()
        while time.monotonic() - begun < 20:
            try:
                connection.sendall(b"a")
                if not connection.recv(1000):
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        assert time.monotonic() - begun < 15

    def test_who_reads_no_response_is_let_go(
        self, connect: Connect, eventually: Eventually
    ) -> None:
        before = left(connect)
        large = b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        connection = connect(large, receive_buffer=4096)
        eventually(lambda: left(connect) == before + 1)
        assert len(told(connection)) < 50_000_000

    def test_who_hangs_up_while_it_waits_is_let_go(
        self, connect: Connect, eventually: Eventually
    ) -> None:
        before = left(connect)
        waiting = [connect(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n") for _ in range(5)]
        for connection in waiting[:3]:
            connection.close()
        eventually(lambda: left(connect) == before + 3, within=15)
        assert left(connect) == before + 3
        waiting[3].sendall(GET)  # and one that pipelines before it goes
        waiting[3].close()
        eventually(lambda: left(connect) == before + 4, within=15)


class TestNobodyFillsTheServer:
    @pytest.mark.parametrize(
        "half", [b"", b"GET / HT", READ + b"Content-Length: 9\r\n\r\n1", GET + b"\r\n"]
    )
    def test_who_waits_for_its_client_longest_makes_room(
        self, connect: Connect, half: bytes
    ) -> None:
        held = [connect(half) for _ in range(3 * PLACES)]
        for _ in range(5):
            begun = time.monotonic()
            assert b"200 OK" in told(connect(GET + b"Connection: close\r\n\r\n"))
            assert time.monotonic() - begun < 2.5  # none of the deadlines
        assert held

    def test_where_all_are_served_one_more_is_told_so(
        self, connect: Connect, eventually: Eventually
    ) -> None:
        waiting = [connect(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n") for _ in range(PLACES)]

        def answered() -> bytes:
            with connect(GET + b"Connection: close\r\n\r\n") as connection:
                return told(connection)

        eventually(lambda: b" 503 " in answered(), within=15)
        lingering = [connect(GET + b"\r\n") for _ in range(4)]
        for response in [*map(told, lingering), answered()]:  # a place is nobody's who was refused
            head, _, body = response.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 503 ")
            assert b"\r\nRetry-After: 2\r\n" in head + b"\r\n"
            assert json.loads(body)["code"] == "unavailable"
        for connection in waiting:
            connection.close()
        eventually(lambda: b" 200 " in answered(), within=15)


class TestItsOwnErrorsAreEnvelopes:
    @pytest.mark.parametrize(
        ("sent", "status", "code"),
        [
            (b"GET\r\n\r\n", 400, "bad_request"),
            (GET + b"Authorization: secret-header\n\r\n\r\n", 400, "bad_request"),
            (GET + b"secret-header\r\n\r\n", 400, "bad_request"),
            (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n", 414, "too_large"),
            (GET + b"X: " + b"a" * 9000 + b"\r\n\r\n", 431, "too_large"),
            (GET + b"X: a\r\n" * 101 + b"\r\n", 431, "too_large"),
            (GET + b"X: " + b"a" * 8000 + b"\r\n" + b"Y: a\r\n" * 20_000, 431, "too_large"),
            (b"GET / HTTP/1.1\r\n\r\n", 400, "bad_request"),
            (b"GET / HTTP/1.2\r\nHost: x\r\n\r\n", 505, "bad_request"),
            (GET + b"Expect: more\r\n\r\n", 417, "bad_request"),
            (GET + b"Transfer-Encoding: x\r\n\r\n", 501, "bad_request"),
            (GET + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 501, "bad_request"),
            (b"GET /fail HTTP/1.1\r\nHost: x\r\n\r\n", 500, "internal_error"),
        ],
    )
    def test_and_close_the_connection(
        self, connect: Connect, sent: bytes, status: int, code: str
    ) -> None:
        head, _, body = told(connect(sent)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d " % status)
        lines = head.decode().split("\r\n")
        for line in (
            "Connection: close",
            "Content-Type: application/json",
            "X-Content-Type-Options: nosniff",
            "Cache-Control: no-store",
            f"Content-Length: {len(body)}",
        ):
            assert line in lines
        envelope = json.loads(body)
        assert envelope.pop("error")
        assert envelope == {"success": False, "code": code}


class TestWhatNobodyReadsOfABody:
    @pytest.mark.parametrize(
        "head",
        [
            b"POST / HTTP/1.1\r\nHost: x\r\n",
            b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n",
            b"POST / HTTP/1.0\r\n",
        ],
        ids=["kept", "close", "HTTP/1.0"],
    )
    def test_does_not_cost_the_response(self, connect: Connect, head: bytes) -> None:
        size = 8 * 1024 * 1024
        connection = connect(head + b"Content-Length: %d\r\n\r\n" % size)
        connection.sendall(bytes(size))
        assert connection.recv(100).split(b"\r\n")[0].endswith(b"200 OK")

    def test_is_bounded(self, connect: Connect) -> None:
        connection = connect(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\n")
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            connection.sendall(bytes(200 * 1024 * 1024))

    def test_the_next_request_on_the_connection_is_behind_it(self, connect: Connect) -> None:
        body = b"GET /fail HTTP/1.1\r\n\r\n"
        connection = connect(
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
            + body
            + GET
            + b"Connection: close\r\n\r\n"
        )
        assert told(connection).count(b"HTTP/1.1 200 OK") == 2


def test_100_continue_is_sent_when_the_body_is_wanted(connect: Connect) -> None:
    expecting = b"Host: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    wanted = connect(b"POST /read HTTP/1.1\r\n" + expecting)
    assert wanted.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    wanted.sendall(b"{}")
    assert wanted.recv(100).startswith(b"HTTP/1.1 200 OK")
    unwanted = connect(b"POST / HTTP/1.1\r\n" + expecting)
    assert told(unwanted).startswith(b"HTTP/1.1 200 OK")
