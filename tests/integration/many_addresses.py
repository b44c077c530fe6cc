"""Clients of several addresses and a server with a bound per address, in a network of their own.

A program, for `test_addresses`: it prints what each client was answered, as JSON.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path

from small_server import serving

BOUND, TRIES = 5, 8
APPLICATION = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Length", "0")])
    return []
"""
SETTINGS = f"""
from api.server import ApiWorker as worker_class

control_socket_disable = True

def post_worker_init(worker):
    worker.watch(per_address={BOUND}, hung_up=lambda threads: None)
"""
ADDRESSES = {
    "loopback": ["127.0.0.1"],
    "IPv6 loopback": ["::1"],
    "IPv4": ["10.9.9.1"],
    "another of IPv4": ["10.9.9.2"],
    "one network of IPv6": ["fd00:9:9:1::1", "fd00:9:9:1::2"],
    "another network of IPv6": ["fd00:9:9:2::1"],
}


def status(connection: socket.socket) -> int:
    """Of a request on it; it stays open."""
    connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    return int(connection.recv(4096).split()[1])


def over_tcp(port: int, source: str) -> socket.socket:
    return socket.create_connection((source, port), timeout=60, source_address=(source, 0))


def over_unix(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(10)
    connection.connect(str(path))
    return connection


def statuses(port: int, sources: list[str]) -> list[int]:
    """Of requests on connections that are open at the same time."""
    with ExitStack() as opened:
        return [
            status(opened.enter_context(closing(over_tcp(port, sources[number % len(sources)]))))
            for number in range(TRIES)
        ]


def told_to_the_sixth(port: int, source: str) -> str:
    with ExitStack() as opened:
        for _ in range(BOUND):
            status(opened.enter_context(closing(over_tcp(port, source))))
        sixth = opened.enter_context(closing(over_tcp(port, source)))
        return sixth.recv(4096).decode()


def seconds_until_served(port: int, source: str) -> float:
    """After the others have closed."""
    begun = time.monotonic()
    while time.monotonic() - begun < 30:
        with closing(over_tcp(port, source)) as connection:
            if status(connection) == 200:
                break
        time.sleep(0.02)
    return time.monotonic() - begun


def main(folder: Path) -> None:
    unix = folder / "socket"
    with serving(folder, APPLICATION, SETTINGS, "[::]", f"unix:{unix}") as port:
        answered = {name: statuses(port, sources) for name, sources in ADDRESSES.items()}
        with ExitStack() as opened:
            local = [opened.enter_context(closing(over_unix(unix))) for _ in range(TRIES)]
            answered["unix"] = [status(connection) for connection in local]
        served = seconds_until_served(port, "10.9.9.1")
        told = told_to_the_sixth(port, "10.9.9.3")
        print(json.dumps({"answered": answered, "served": served, "told": told}))  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]))
