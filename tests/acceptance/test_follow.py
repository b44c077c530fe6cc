"""`callboard call --async --follow`, against the real stack: what a person and a pipe see."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import pytest
from local_stack import Stack

from callboard import Client
from callboard.errors import ServiceUnavailable
from callboard.stack.ports import free_port

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs a pseudo-terminal")

NO_RUN = "00000000-0000-0000-0000-000000000000"


@dataclass
class Command:
    """A running `callboard`; what it writes to standard error is read as it comes."""

    process: subprocess.Popen[bytes]
    shown_from: int  # a file descriptor
    shown: str = field(default="")

    def wait_for(self, pattern: str) -> str:
        """The first match in what it showed, once it is there."""
        while not (found := re.search(pattern, self.shown)):
            self._read()
        return found.group()

    def end(self) -> tuple[int, str]:
        """Its exit code and its standard output."""
        with suppress(EOFError):
            while True:
                self._read()
        output: IO[bytes] | None = self.process.stdout
        assert output is not None
        return self.process.wait(timeout=60), output.read().decode()  # little: it fits the pipe

    def _read(self) -> None:
        try:
            part = os.read(self.shown_from, 65536)
        except OSError:  # what Linux says of a pseudo-terminal that nobody writes to any more
            part = b""
        if not part:
            raise EOFError(self.shown)
        self.shown += part.decode()


@pytest.fixture
def run(app_stack: Stack) -> Callable[..., Command]:
    """Start `callboard ARGUMENTS` on the stack, its standard error a terminal or a pipe."""

    @contextmanager
    def start(*arguments: str, terminal: bool = False) -> Iterator[Command]:
        read, write = pty.openpty() if terminal else os.pipe()
        # a shell that starts the tests in the background has them, and what they start, ignore it
        hearing = ["env", "--default-signal=INT"]
        command = [*hearing, sys.executable, "-m", "callboard.cli", *arguments]
        bare = {name: v for name, v in os.environ.items() if name != "CALLBOARD_TOKEN"}
        if "--data-dir" not in command:
            command += ["--data-dir", str(app_stack.data_dir)]
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=write,
            env={**bare, "TERM": "xterm", "COLUMNS": "100"},
        ) as process:
            os.close(write)
            try:
                yield Command(process, read)
            finally:
                process.kill()
                os.close(read)

    return start


FOLLOW = ("call", "slow", "--async", "--follow")


@pytest.fixture
def steps(tmp_path: Path) -> list[Path]:
    """The files that let a run of `stepwise` go on, step for step."""
    return [tmp_path / f"step-{number}" for number in range(6)]


def stepwise(steps: list[Path]) -> tuple[str, ...]:
    """The command that follows such a run."""
    params = json.dumps({"until": [str(step) for step in steps]})
    return ("call", "stepwise", "--async", "--follow", params)


def test_a_pipe_gets_the_envelope_alone_and_lines_beside_it(run, steps):
    with run(*stepwise(steps)) as command:
        for number, step in enumerate(steps):
            command.wait_for(f"running {number}0?% step {number}\n")
            step.touch()
        code, output = command.end()
    assert (code, json.loads(output)) == (0, {"success": True, "data": {"attempt": 1}})
    lines = command.shown.splitlines()
    assert lines[0].startswith("Run ")
    assert "running 50% step 5" in lines
    assert lines[-1].startswith("succeeded")


def test_a_failure_is_an_exit_code(run):
    with run("call", "refuse", "--follow") as command:
        code, output = command.end()
    assert (code, json.loads(output)["error"]) == (1, "Event not found")


def test_a_refused_call_has_nothing_to_follow(run):
    with run("call", "ecco", "--follow") as command:
        code, output = command.end()
    assert code == 1
    assert "Did you mean 'echo'" in output
    assert command.shown == ""


def test_a_terminal_shows_a_bar(run, steps):
    with run(*stepwise(steps), terminal=True) as command:
        for number, step in enumerate(steps):
            command.wait_for(rf"running.*{number}0?%.*step {number}")
            step.touch()
        code, output = command.end()
    assert (code, json.loads(output)["data"]) == (0, {"attempt": 1})
    assert "━" in command.shown
    assert re.search(r"succeeded.*100%", command.shown)


@pytest.mark.parametrize("terminal", [False, True])
def test_ctrl_c_leaves_the_run_and_tells_how_to_cancel_it(run, app_stack, terminal):
    with run(*FOLLOW, '{"seconds": 55}', terminal=terminal) as command:
        run_id = command.wait_for(r"(?<=Run )\S{36}")
        command.wait_for(r"step \d")
        command.process.send_signal(signal.SIGINT)
        code, output = command.end()
    assert (code, output) == (130, "")
    assert "The run goes on" in command.shown
    assert "Traceback" not in command.shown
    client = Client(app_stack.url, app_stack.token("alice"))
    assert client.run(run_id)["status"] == "running"
    told = re.search(r"cancel it +callboard (runs .*)", command.shown)
    assert told is not None
    with run(*shlex.split(told.group(1))) as cancel:
        code, output = cancel.end()
    assert (code, output) == (0, f"{run_id} slow: canceled\n")
    with run(*shlex.split(told.group(1).replace(" cancel ", " follow "))) as again:
        code, output = again.end()
    assert (code, json.loads(output)["error"]) == (1, "Canceled")


def test_it_goes_on_while_the_api_restarts(run, app_stack, steps):
    (master,) = [
        pid
        for pid, command in app_stack.descendants().items()
        if "gunicorn" in command and _children(pid)
    ]
    with run(*stepwise(steps)) as command:
        command.wait_for("step 0")
        for worker in _children(master):
            os.kill(worker, signal.SIGKILL)  # its master starts another
        for number, step in enumerate(steps):
            command.wait_for(f"step {number}")  # also what comes from the next
            step.touch()
        code, output = command.end()
    assert (code, json.loads(output)["data"]) == (0, {"attempt": 1})


def _children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


def test_an_api_that_stays_away_is_told():
    client = Client(f"http://127.0.0.1:{free_port()}", "t")
    with pytest.raises(ServiceUnavailable, match="does not answer"):
        list(client.follow(NO_RUN, patience=1))
