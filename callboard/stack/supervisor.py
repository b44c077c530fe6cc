"""The supervisor: starts processes, waits until they are ready, notices a death, stops all."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Self

from callboard.errors import CallboardError
from callboard.stack.process import Process, Program

__all__ = ["ProcessFailed", "StopRequested", "Supervisor", "stop_signals"]

TICK = 0.05  # seconds between two looks at the processes
SHOWN = 20  # last log lines of a process that failed
GRACE = 6.0  # seconds that a process has to stop, when nobody says
SERVER_GRACE = 3.0  # seconds for the embedded servers, which stop last


class ProcessFailed(CallboardError):
    """A process ended or did not become ready; the text says which and why."""

    def __init__(self, process: Process, what: str) -> None:
        program = process.program
        text = f"{process.name} {what}."
        if lines := process.last_lines(SHOWN):
            listed = "\n".join(f"  {line}" for line in lines)
            text += f" Its last lines ({program.log}):\n{listed}"
        super().__init__(f"{text}\n{program.hint}".rstrip())
        self.process = process


class StopRequested(BaseException):
    """Ctrl-C or SIGTERM; a BaseException, so that no handler of errors takes it for one."""


class Supervisor:
    """Runs programs. Used as a context manager: at the end everything that it started has ended.

    ``grace``: the seconds that a process has between SIGTERM and SIGKILL.
    ``show``: takes each line that a process prints, None to show nothing.
    ``announce``: takes what is waited for, again when that changes.
    """

    def __init__(
        self,
        *,
        grace: float = GRACE,
        show: Callable[[str, str], None] | None = None,
        announce: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.grace = grace
        self.announce = announce
        self.stop_requests = 0
        self._show = show
        self._processes: list[Process] = []
        self._servers: set[Process] = set()
        self._leaving: dict[Process, float] = {}  # replaced ones -> when they are killed

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self, program: Program, *, server: bool = False) -> Process:
        """Start a program. A server is stopped after everything else."""
        process = Process(program)
        self._processes.append(process)
        if server:
            self._servers.add(process)
        return process

    def wait_ready(self, processes: Iterable[Process], timeout: float) -> None:
        """Return when all are ready; raises `ProcessFailed` when one ends or takes too long."""
        deadline = time.monotonic() + timeout
        waiting, announced = list(processes), 0
        while waiting:
            self.tick()
            waiting = [process for process in waiting if not process.program.ready()]
            if waiting and len(waiting) != announced:
                self.announce(f"Waiting for {', '.join(process.name for process in waiting)} ...")
                announced = len(waiting)
            if waiting and time.monotonic() > deadline:
                raise ProcessFailed(waiting[0], f"was not ready after {timeout:g} s")

    def watch(self, tick: Callable[[], None] | None = None) -> None:
        """Look after the processes until one fails (`ProcessFailed`) or a stop is asked."""
        while True:
            self.tick()
            if tick is not None:
                tick()

    def tick(self) -> None:
        """Show new lines, notice deaths and a wish to stop, then wait a moment."""
        self._echo([*self._processes, *self._leaving])
        if self.stop_requests:
            raise StopRequested
        for process in self._processes:
            if not process.running:
                raise ProcessFailed(process, process.ending)
        self._see_off()
        time.sleep(TICK)

    def _echo(self, processes: Iterable[Process]) -> None:
        """Show what they printed since the last time."""
        for process in processes:
            for line in process.new_lines():
                if self._show:
                    self._show(process.name, line)

    def replace(self, old: Process, new: Process) -> None:
        """Let ``new``, already started, stand for ``old``, which ends its work in its own time."""
        self._processes.remove(old)
        old.send(signal.SIGTERM)
        self._leaving[old] = time.monotonic() + self.grace

    def remove(self, process: Process) -> None:
        """End one process at once."""
        self._processes.remove(process)
        process.end()

    def stop(self) -> None:
        """Stop everything: the servers last, because the others need them to finish."""
        servers = [process for process in self._processes if process in self._servers]
        rest = [process for process in self._processes if process not in self._servers]
        self._stop([*rest, *self._leaving], self.grace)
        self._stop(servers, SERVER_GRACE)
        self._processes.clear()
        self._leaving.clear()

    def _stop(self, processes: list[Process], grace: float) -> None:
        for process in processes:
            process.send(signal.SIGTERM)
        deadline = time.monotonic() + grace
        while (
            any(process.running for process in processes)
            and time.monotonic() < deadline
            and self.stop_requests < 2
        ):
            self._echo(processes)
            for process in processes:
                process.program.nudge()
            time.sleep(TICK)
        self._echo(processes)
        for process in processes:
            process.end()

    def _see_off(self) -> None:
        for process, deadline in list(self._leaving.items()):
            if not process.running or time.monotonic() > deadline:
                del self._leaving[process]
                process.end()


@contextmanager
def stop_signals(supervisor: Supervisor) -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP ask the supervisor to stop; the second one kills at once."""

    def ask(number: int, frame: FrameType | None) -> None:
        supervisor.stop_requests += 1
        if supervisor.stop_requests == 1:
            sys.stderr.write("\nStopping. Once more kills at once.\n")

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
