"""How an embedded server is started: on a free port, again on another one after a clash."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from callboard.stack.process import Program
from callboard.stack.supervisor import ProcessFailed, Supervisor

__all__ = ["StartingServer"]

TIMEOUT = 30.0  # seconds: a large append-only file takes its time to load
ATTEMPTS = 3

Server = TypeVar("Server")


class StartingServer(Generic[Server]):
    """A server that has been started and may not answer yet.

    ``attempt`` chooses a free port and says what to run there.
    """

    def __init__(
        self, supervisor: Supervisor, attempt: Callable[[], tuple[Program, Server]]
    ) -> None:
        self._supervisor = supervisor
        self._attempt = attempt
        self._start()

    def _start(self) -> None:
        program, self._server = self._attempt()
        self._process = self._supervisor.start(program, server=True)

    def wait(self) -> Server:
        """The server, once it is ready; raises `ProcessFailed`.

        Where somebody took the port meanwhile, it is started again on another one.
        """
        for left in reversed(range(ATTEMPTS)):
            try:
                self._supervisor.wait_ready([self._process], TIMEOUT)
                break
            except ProcessFailed as failure:
                if failure.process is not self._process or not left or not self._port_taken():
                    raise
                self._supervisor.remove(self._process)
                self._start()
        return self._server

    def _port_taken(self) -> bool:
        return "ddress already in use" in "".join(self._process.last_lines(20))
