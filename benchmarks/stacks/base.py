"""What a stack is: the processes that answer calls, and how to call them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from typing import Any, Literal

from benchmarks.jobs import DONE, SHORT_JOBS
from callboard.stack.folder import DataFolder
from callboard.stack.process import Program

__all__ = ["HOST", "Request", "Site", "Stack", "flask_server", "post", "program", "workers"]

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where a stack runs for one turn: fresh servers, a free port, a folder for its logs."""

    folder: DataFolder
    redis_url: str
    mongodb_uri: str
    port: int

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to know of it."""
        return {"REDIS_URL": self.redis_url, "MONGODB_URI": self.mongodb_uri}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A POST of ``{}``."""

    path: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def as_bytes(self) -> bytes:
        """What goes over the wire."""
        fields = {
            "Host": HOST,
            "Content-Type": "application/json",
            "Content-Length": "2",
            **self.headers,
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        return f"POST {self.path} HTTP/1.1\r\n{lines}\r\n{{}}".encode()


def post(site: Site, job: str) -> Request:
    """The request of a stack that has no wishes of its own."""
    return Request(path=f"/{job}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """One way to answer a call with what a handler returned."""

    key: str  # as --only takes it
    name: str  # as the table shows it
    kind: Literal["ours", "peer", "floor"]
    settings: str  # said beside the table
    programs: Callable[[Site], Sequence[Program]]
    request: Callable[[Site, str], Request] = post
    jobs: Sequence[str] = SHORT_JOBS  # that it is measured with

    def ask(self, site: Site, job: str, params: Mapping[str, Any], timeout: float) -> Any:
        """What the job answers to these params; raises OSError or HTTPException, and ValueError
        for an answer that is no success."""
        request = self.request(site, job)
        connection = HTTPConnection(HOST, site.port, timeout=timeout)
        headers = {"Content-Type": "application/json", **request.headers}
        try:
            connection.request("POST", request.path, json.dumps(params), headers)
            text = connection.getresponse().read()
        finally:
            connection.close()
        try:
            answer = json.loads(text)
        except ValueError:
            answer = None
        if not isinstance(answer, dict) or not answer.get("success"):
            raise ValueError(f"{self.name}, {job}: {text!r:.500}")
        return answer["data"]

    def answers(self, site: Site, job: str, timeout: float) -> bool:
        """Whether a call of this job is answered rightly within ``timeout`` seconds."""
        request = self.request(site, job)
        connection = HTTPConnection(HOST, site.port, timeout=timeout)
        headers = {"Content-Type": "application/json", **request.headers}
        try:
            connection.request("POST", request.path, b"{}", headers)
            response = connection.getresponse()
            return response.status == 200 and DONE.encode() in response.read()
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()


def program(site: Site, name: str, *command: str, **environment: str) -> Program:
    """``python -m COMMAND``, ready at once: the first right answer tells when all are."""
    return Program(
        name=name,
        command=[sys.executable, "-m", *command],
        log=site.folder.log(name),
        ready=lambda: True,
        environment={**site.environment, **environment},
    )


def flask_server(
    site: Site, app: str, *, config: str = "gunicorn_gevent", processes: int = 1
) -> Program:
    """gunicorn with one of the settings files of ``benchmarks/peers``."""
    return program(
        site,
        "web",
        *("gunicorn", app, "--config", f"python:benchmarks.peers.{config}"),
        *("--bind", f"{HOST}:{site.port}", "--workers", str(processes)),
    )


def workers(site: Site, count: int, *command: str) -> list[Program]:
    """``count`` equal worker processes, for a peer that starts none by itself."""
    return [program(site, f"worker-{number}", *command) for number in range(1, count + 1)]
