"""Who hangs up while it waits, or sends half of a request, costs nobody else anything."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from local_stack import Stack

HALVES = 300
KEPT = ("01", "08")  # by the server, in /proc/net/tcp: established; the client alone has closed

Eventually = Callable[..., None]


def test_a_caller_who_hangs_up_is_let_go_and_the_run_goes_on(
    app_stack: Stack, eventually: Eventually, tmp_path: Path
) -> None:
    caller, gate = f"hung-up-{uuid4()}", tmp_path / "gate"
    headers = {"Authorization": f"Bearer {app_stack.token(caller)}"}

    def runs(status: str) -> list[dict[str, Any]]:
        response = httpx.get(
            f"{app_stack.url}/api/runs?status={status}", headers=headers, timeout=60
        )
        listed: list[dict[str, Any]] = response.json()["data"]["runs"]
        return listed

    body = json.dumps({"until": str(gate)}).encode()
    with closing(connected(app_stack)) as connection:
        connection.sendall(head("held", caller, app_stack, len(body)) + body)
        eventually(lambda: runs("running"))
        port = connection.getsockname()[1]
        assert kept(app_stack, port)
    eventually(lambda: not kept(app_stack, port))
    [run] = runs("running")  # and this one works on
    eventually(lambda: any("status=499" in line for line in logged(app_stack, run["runId"])))
    gate.touch()
    eventually(lambda: runs("succeeded"))


CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "half",
    [
        pytest.param([b"POST /api/act"], id="heads"),
        pytest.param([b"Content-Length: 90\r\n\r\n", b'{"seconds":'], id="bodies"),
        pytest.param([CHUNKED, b"5\r\n{", b"5;x", b"0\r\nX: y"], id="chunks"),
    ],
)
def test_half_sent_requests_hold_up_nobody(app_stack: Stack, half: Sequence[bytes]) -> None:
    begin, *rests = half
    with ExitStack() as held:
        for number in range(HALVES):
            connection = held.enter_context(closing(connected(app_stack)))
            if rests:
                start = head("slow", "mallory", app_stack, None) + begin
                connection.sendall(start + rests[number % len(rests)])
            else:
                connection.sendall(begin)
        for _ in range(5):
            begun = time.monotonic()
            assert app_stack.call("echo").status_code == 200
            assert time.monotonic() - begun < 8  # none of the deadlines


def connected(stack: Stack) -> socket.socket:
    address = httpx.URL(stack.url)
    return socket.create_connection((address.host, address.port or 80), timeout=60)


def head(action: str, caller: str, stack: Stack, length: int | None) -> bytes:
    """Of a call; without a length it goes on."""
    lines = [
        f"POST /api/actions/{action} HTTP/1.1",
        "Host: localhost",
        f"Authorization: Bearer {stack.token(caller)}",
        "Content-Type: application/json",
    ]
    if length is not None:
        lines += [f"Content-Length: {length}", ""]
    return "\r\n".join([*lines, ""]).encode()


def kept(stack: Stack, client_port: int) -> bool:
    """Whether the API still has its end of this client's connection (Linux)."""
    server_port = httpx.URL(stack.url).port
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, *_ = line.split()
        ports = [int(address.rpartition(":")[2], 16) for address in (local, remote)]
        if ports == [server_port, client_port] and state in KEPT:
            return True
    return False


def logged(stack: Stack, run_id: str) -> list[str]:
    """The lines of the API's log about this run."""
    lines = (stack.data_dir / "log" / "web.log").read_text().splitlines()
    return [line for line in lines if run_id in line]
