"""A connection that waits too long for a request is ended; one that waits for a run is not."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import httpx
import pytest
from local_stack import Stack, started

KEEP_ALIVE = 3  # seconds: enough for a busy machine to send a request
LONGER = 6


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose API waits a moment for a request."""
    variables = {
        "CALLBOARD_ACTIONS": "app",
        "PYTHONPATH": str(Path(__file__).parent),
        "GUNICORN_CMD_ARGS": f"--keep-alive {KEEP_ALIVE}",
    }
    with started(tmp_path_factory.mktemp("idle"), **variables) as stack:
        stack.wait_ready()
        yield stack


@pytest.fixture
def connection(impatient: Stack) -> Iterator[HTTPConnection]:
    address = httpx.URL(impatient.url)
    connection = HTTPConnection(address.host, address.port, timeout=60)
    with closing(connection):
        connection.connect()
        yield connection


def is_ended(opened: socket.socket) -> bool:
    """Whether the server ends it by itself, within the connection's timeout."""
    return opened.recv(1) == b""


@pytest.mark.parametrize("sent", [b"", b"POST /api/actions/ec"])
def test_who_sends_no_whole_request_is_let_go(connection, sent):
    connection.sock.sendall(sent)
    assert is_ended(connection.sock)


def test_a_call_may_take_longer_and_its_connection_is_kept_for_the_next(impatient, connection):
    token = impatient.token("alice")
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    for seconds in (LONGER, 0):
        body = f'{{"seconds": {seconds}}}'
        connection.request("POST", "/api/actions/slow", body, headers)
        response = connection.getresponse()
        assert (response.status, response.read()[:15]) == (200, b'{"success":true')
    assert is_ended(connection.sock)
