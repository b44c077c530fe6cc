"""The whole `callboard up` as a test runs it, and calls to it over HTTP."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx
from pymongo import MongoClient
from pymongo.database import Database

from callboard.stack.ports import free_port
from callboard.stack.tokens import mint_token
from callboard.testing.servers import named_servers, own_database, own_redis

__all__ = ["LiveStack"]

START = 90.0  # seconds: the first start makes the database's user, and CI is slow
REPLACED = (  # it has databases and secrets of its own, whatever the environment says
    *("REDIS_URL", "MONGODB_URI", "SECRET_KEY"),
    *("JWT_SECRET", "JWT_PUBLIC_KEY", "JWT_JWKS_URL"),
)


@contextmanager
def _own_servers(folder: Path) -> Iterator[dict[str, str]]:
    """REDIS_URL and MONGODB_URI, as far as the user has named servers."""
    named = named_servers(os.environ, folder)
    own = {"REDIS_URL": own_redis, "MONGODB_URI": own_database}
    with ExitStack() as stack:
        yield {name: stack.enter_context(own[name](address)) for name, address in named.items()}


@dataclass
class LiveStack:
    """A `callboard up` that was started; ``announced`` is empty until it is ready."""

    process: subprocess.Popen[str]
    data_dir: Path
    output: Path
    announced: dict[str, Any] = field(default_factory=dict)

    @classmethod
    @contextmanager
    def started(
        cls, folder: Path, *flags: str, cwd: Path, env_file: str = os.devnull, **variables: str
    ) -> Iterator[Self]:
        """Run `callboard up` in ``cwd`` with a data folder in ``folder``; ended with the block.

        ``flags`` and ``variables`` (of the environment) go over the usual ones. Servers that
        the environment or ``.env`` in ``cwd`` names are used, with databases of its own there.
        """
        with (
            _own_servers(cwd) as servers,
            cls._started(
                folder, *flags, cwd=cwd, env_file=env_file, **{**servers, **variables}
            ) as stack,
        ):
            yield stack

    @classmethod
    @contextmanager
    def _started(
        cls, folder: Path, *flags: str, cwd: Path, env_file: str, **variables: str
    ) -> Iterator[Self]:
        output = folder / "output"
        ports = ["--port", str(free_port()), "--flower-port", str(free_port())]
        data = folder / "data"
        bare = {name: value for name, value in os.environ.items() if name not in REPLACED}
        with output.open("w") as file:
            process = subprocess.Popen(
                # what is given last wins: a test may choose its own port
                [
                    *(sys.executable, "-m", "callboard.cli", "--env-file", env_file, "up"),
                    *("--data-dir", str(data), *ports, *flags),
                ],
                cwd=cwd,
                env={**bare, "PYTHONUNBUFFERED": "1", **variables},
                stdout=file,
                stderr=subprocess.STDOUT,
                text=True,
            )
        stack = cls(process=process, data_dir=data, output=output)
        try:
            yield stack
        finally:
            if process.poll() is None:
                stack.stop()

    def wait_ready(self) -> None:
        """Return when it answers calls; raises RuntimeError, with what it printed."""
        deadline = time.monotonic() + START
        while "Callboard is ready" not in self.printed:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"`callboard up` is not ready:\n{self.printed}")
            time.sleep(0.05)
        self.announced = json.loads((self.data_dir / "running.json").read_text())

    def stop(self, number: signal.Signals = signal.SIGINT) -> float:
        """Stop it as Ctrl-C does; the seconds that it took."""
        started = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(timeout=30)
        return time.monotonic() - started

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
