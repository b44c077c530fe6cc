"""The processes of an application: web, worker, beat and Flower, as `callboard up` runs them.

They are the commands of `callboard web` and so on; `up` adds addresses and unique names.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from callboard import programs
from callboard.connections.keys import DEFAULT_NAMESPACE, Keys
from callboard.stack.environment import SHARED
from callboard.stack.folder import DataFolder
from callboard.stack.ports import api_url
from callboard.stack.process import Program
from callboard.stack.ready import http_answers, key_exists
from callboard.stack.running import Running

__all__ = ["Application"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """How the application's processes run on this machine."""

    folder: DataFolder
    host: str
    port: int
    flower_port: int
    workers: int  # child processes of the worker
    environment: Mapping[str, str]

    @property
    def url(self) -> str:
        """Where the API answers on this machine."""
        return api_url(self.host, self.port)

    @property
    def flower_url(self) -> str:
        """Where Flower answers."""
        return f"http://127.0.0.1:{self.flower_port}"

    def running(self) -> Running:
        """What the other commands need to know of it."""
        return Running(
            pid=os.getpid(),
            url=self.url,
            flower_url=self.flower_url,
            environment={
                name: self.environment[name] for name in SHARED if name in self.environment
            },
        )

    def web(self) -> Program:
        """The API under gunicorn."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        flags = ["--bind", f"{host}:{self.port}"]
        return self._program(
            "web",
            flags,
            ready=lambda: http_answers(f"{self.url}/healthz"),  # the key set may be away
        )

    def worker(self, queues: Iterable[str]) -> Program:
        """A Celery worker under a name of its own, so that an old and a new one can overlap."""
        name = f"callboard-{secrets.token_hex(4)}@{socket.gethostname()}"
        return self._program(
            "worker",
            [
                *("--hostname", name.replace("%", "%%")),
                *("--queues", ",".join(queues)),
                *("--concurrency", str(self.workers)),
                *("--without-mingle", "--without-gossip"),  # a second of asking for neighbours
            ],
            ready=lambda: key_exists(self._redis_url, self._keys.worker + name),
        )

    def beat(self) -> Program:
        """The Celery beat, which fires schedules."""
        return self._program(
            "beat",
            [],
            ready=lambda: key_exists(self._redis_url, f"{self._keys.beat}*"),
        )

    def flower(self) -> Program:
        """Flower, on 127.0.0.1 whatever the API's host is: it asks nobody for a password."""
        flags = ["--address=127.0.0.1", f"--port={self.flower_port}"]
        return self._program(
            "flower",
            flags,
            ready=lambda: http_answers(f"{self.flower_url}/healthcheck"),
        )

    @property
    def _keys(self) -> Keys:
        return Keys(self.environment.get("CALLBOARD_NAMESPACE") or DEFAULT_NAMESPACE)

    @property
    def _redis_url(self) -> str:
        return self.environment["REDIS_URL"]

    def _program(
        self,
        name: programs.Name,
        flags: list[str],
        *,
        ready: Callable[[], bool],
    ) -> Program:
        return Program(
            name=name,
            command=programs.command(name, *flags),
            log=self.folder.log(name),
            ready=ready,
            environment={**self.environment, "PYTHONUNBUFFERED": "1"},
        )
