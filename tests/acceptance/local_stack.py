"""A real `callboard up` as a test runs it, and calls to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from pymongo import MongoClient
from pymongo.database import Database

from callboard.stack.ports import free_port
from callboard.stack.tokens import mint_token

ROOT = Path(__file__).parents[2]
START = 90.0  # seconds: the first start makes the database's user, and CI is slow
STOP = 10.0  # seconds: what Ctrl-C promises
SETTINGS = (
    *("REDIS_URL", "MONGODB_URI", "SECRET_KEY"),
    *("JWT_SECRET", "JWT_PUBLIC_KEY", "JWT_JWKS_URL"),
)


@dataclass
class Stack:
    """A `callboard up` that was started; ``announced`` is empty until it is ready."""

    process: subprocess.Popen[str]
    data_dir: Path
    output: Path
    announced: dict[str, Any] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Of the API."""
        url: str = self.announced["url"]
        return url

    @property
    def printed(self) -> str:
        """All that it printed so far."""
        return self.output.read_text()

    def token(self, sub: str = "alice", **claims: Any) -> str:
        """A token that its API accepts."""
        return mint_token(sub, self.announced["environment"]["JWT_SECRET"], claims=claims)

    def call(
        self, action: str, params: Any = None, *, as_user: str | None = "alice", **headers: str
    ) -> httpx.Response:
        """Call an action over HTTP; ``as_user=None`` without a token."""
        if as_user is not None:
            headers["Authorization"] = f"Bearer {self.token(as_user)}"
        return httpx.post(
            f"{self.url}/api/actions/{action}", json=params or {}, headers=headers, timeout=60
        )

    @contextmanager
    def database(self) -> Iterator[Database[dict[str, Any]]]:
        """Its database, past all its code."""
        with MongoClient[dict[str, Any]](self.announced["environment"]["MONGODB_URI"]) as client:
            yield client.get_default_database()

    def descendants(self) -> dict[int, str]:
        """Every process below it: id -> command line (Linux)."""
        return dict(_below(self.process.pid))

    def wait_ready(self) -> None:
        """Return when it has printed its block."""
        deadline = time.monotonic() + START
        while "Callboard is ready" not in self.printed:
            assert self.process.poll() is None, self.printed
            assert time.monotonic() < deadline, self.printed
            time.sleep(0.05)
        self.announced = json.loads((self.data_dir / "running.json").read_text())

    def stop(self, number: signal.Signals = signal.SIGINT) -> float:
        """Stop it as Ctrl-C does; the seconds that it took."""
        started = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(timeout=30)
        return time.monotonic() - started


def _below(parent: int) -> Iterator[tuple[int, str]]:
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    for child in map(int, children):
        command = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        yield child, command
        yield from _below(child)


@contextmanager
def started(folder: Path, *flags: str, cwd: Path = ROOT, **variables: str) -> Iterator[Stack]:
    """Run `callboard up` on free ports with a data folder of its own; ended with the block."""
    output = folder / "output"
    ports = ["--port", str(free_port()), "--flower-port", str(free_port())]
    data = folder / "data"
    bare = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    with output.open("w") as file:
        process = subprocess.Popen(
            # what is given last wins: a test may choose its own port
            [sys.executable, "-m", "callboard.cli", "up", "--data-dir", data, *ports, *flags],
            cwd=cwd,
            env={**bare, "PYTHONUNBUFFERED": "1", **variables},
            stdout=file,
            stderr=subprocess.STDOUT,
            text=True,
        )
    stack = Stack(process=process, data_dir=data, output=output)
    try:
        yield stack
    finally:
        if process.poll() is None:
            stack.stop()
