"""One process of the stack: started in a group of its own, logged to a file, stopped as a group."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

__all__ = ["Process", "Program"]

_LAUNCHER = Path(__file__).with_name("launch.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What to run."""

    name: str  # as the user reads it: "worker", "MongoDB"
    command: Sequence[str]
    log: Path  # its standard output and error
    ready: Callable[[], bool]  # answers quickly, also while the program is not up
    environment: Mapping[str, str] = field(default_factory=dict)  # added to the supervisor's own
    hint: str = ""  # the next step, when it does not start
    orphaned: signal.Signals = signal.SIGKILL  # what it gets when the supervisor was killed
    nudge: Callable[[], None] = lambda: None  # again and again while it is to stop


class Process:
    """A started `Program`."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._read: IO[str] = _rotated(program.log)
        with program.log.open("a") as log:
            self._popen = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", _LAUNCHER),
                    *(str(os.getpid()), str(int(program.orphaned)), *program.command),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **program.environment},
                start_new_session=True,  # a Ctrl-C of the terminal reaches the supervisor only
            )

    @property
    def name(self) -> str:
        """The program's name."""
        return self.program.name

    @property
    def pid(self) -> int:
        """The process id, which is also the id of its group."""
        return self._popen.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._code() is None

    @property
    def ending(self) -> str:
        """How it ended: ``was killed by SIGKILL`` or ``ended with exit code 1``."""
        code = self._code()
        if code is not None and code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        return f"ended with exit code {code}"

    def new_lines(self) -> list[str]:
        """What it printed since the last call: whole lines."""
        lines: list[str] = []
        while True:
            position = self._read.tell()
            line = self._read.readline()
            if not line.endswith("\n"):
                self._read.seek(position)
                return lines
            lines.append(line.rstrip())

    def last_lines(self, count: int) -> list[str]:
        """The end of its log: at most ``count`` lines that are not empty."""
        text = self.program.log.read_text(errors="replace")
        return [line for line in text.splitlines() if line.strip()][-count:]

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the program itself; one that has ended is left alone."""
        if self.running:
            os.kill(self.pid, number)

    def end(self) -> None:
        """Kill what is left of its group, also what the program left behind when it ended.

        Only then is its id given back: until here no other process, and no other group, has it.
        """
        # PermissionError: what macOS says of a group that holds zombies only
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait()
        self._read.close()

    def _code(self) -> int | None:
        """Its exit code, as `Popen.poll` says it; what has ended keeps its id."""
        if self._popen.returncode is not None or not hasattr(os, "waitid"):  # macOS before 3.13
            return self._popen.poll()
        try:
            ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:  # somebody else has taken it away
            return self._popen.poll()
        if ended is None:
            return None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


def _rotated(log: Path) -> IO[str]:
    """Keep the log of the run before as ``NAME.log.1`` and open a new one for reading."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists():
        log.replace(log.with_name(f"{log.name}.1"))
    log.touch(mode=0o600)
    return log.open(errors="replace")
