"""`make wheel-test`: the built wheel in a fresh environment, as the users of the package have it.

Not part of `make test`: it installs all that the lock names. No compiler is on the PATH, and every
path holds a blank.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ("sh", "curl", "uname")  # what else is on the PATH
PIP = ("--quiet", "--disable-pip-version-check")
START = 180.0  # seconds

# An application that was there before: its packages, its Celery application, its servers' settings.
THEIRS = {
    "api/__init__.py": "raise ImportError('theirs')\n",
    "worker/__init__.py": "from celery import Celery\n\napp = Celery('theirs')\n",
    "gunicorn.conf.py": "raise ImportError('theirs')\n",
    "flowerconfig.py": "raise ImportError('theirs')\n",
    "README.md": "theirs\n",
}


@dataclass(frozen=True, kw_only=True)
class Project:
    """A folder in which commands of the installed package run."""

    folder: Path
    path: str  # the PATH
    environment: dict[str, str]

    def start(self, *command: str, **options: Any) -> subprocess.Popen[str]:
        program, *arguments = command
        return subprocess.Popen(
            [shutil.which(program, path=self.path) or program, *arguments],
            cwd=self.folder,
            env={"PATH": self.path, "HOME": str(self.folder), **self.environment},
            text=True,
            **options,
        )

    def run(self, *command: str) -> str:
        """What a command prints; it must succeed."""
        process = self.start(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        printed, _ = process.communicate(timeout=300)
        assert process.returncode == 0, printed
        return printed

    def fails(self, *command: str) -> str:
        """What a command prints that must not succeed."""
        process = self.start(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        printed, _ = process.communicate(timeout=300)
        assert process.returncode != 0, printed
        return printed

    @contextmanager
    def running(self, *command: str) -> Iterator[Callable[[str], str]]:
        """A program, ended by SIGTERM; yields what waits for a text in its output."""
        log = self.folder / f"{'-'.join(command[:2])}.log"
        with log.open("w") as file:
            process = self.start(*command, stdout=file, stderr=subprocess.STDOUT)

        def wait_for(text: str) -> str:
            deadline = time.monotonic() + START
            while text not in log.read_text():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
            return log.read_text()

        try:
            yield wait_for
            assert process.poll() is None, log.read_text()
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=40) in (0, -signal.SIGTERM), log.read_text()
        finally:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The PATH of a fresh environment that holds the wheel and what the lock names."""
    folder = tmp_path_factory.mktemp("fresh") / "an environment"
    wheels, tools = folder / "wheels", folder / "tools"
    tools.mkdir(parents=True)
    for name in TOOLS:
        (tools / name).symlink_to(shutil.which(name) or pytest.fail(f"needs {name}"))
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", wheels, ROOT]
    subprocess.run([sys.executable, "-m", "pip", *build, *PIP], check=True)
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    binary = ["install", *PIP, "--only-binary", ":all:"]
    lock = ["--require-hashes", "-r", ROOT / "requirements-embedded.lock"]
    (wheel,) = wheels.iterdir()
    path = f"{folder / 'venv/bin'}{os.pathsep}{tools}"
    assert not [name for name in ("cc", "gcc", "clang") if shutil.which(name, path=path)]
    for arguments in (lock, ["--no-deps", wheel]):
        subprocess.run(
            [folder / "venv/bin/python", "-m", "pip", *binary, *arguments],
            env={**os.environ, "PATH": path},
            check=True,
        )
    return path


@pytest.fixture(scope="session", params=["an empty folder", "an application of theirs"])
def project(
    request: pytest.FixtureRequest, installed: str, tmp_path_factory: pytest.TempPathFactory
) -> Project:
    """A folder after `callboard init`."""
    folder = tmp_path_factory.mktemp("project") / request.param
    folder.mkdir()
    theirs = THEIRS if "theirs" in request.param else {}
    for name, text in theirs.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    made = Project(folder=folder, path=installed, environment={})
    assert "callboard init" in made.fails("callboard", "up")
    printed = made.run("callboard", "init")
    assert "Next: callboard up" in printed
    assert {name: (folder / name).read_text() for name in theirs} == theirs
    return made


@pytest.fixture(scope="session")
def running(project: Project) -> Iterator[tuple[Project, str]]:
    """The project while its `callboard up` runs, in its environment; and what that printed."""
    ports = ("--port", str(_free_port()), "--flower-port", str(_free_port()))
    with project.running("callboard", "up", *ports) as wait_for:
        printed = wait_for("Ctrl-C stops everything")
        announced = json.loads((project.folder / ".callboard" / "running.json").read_text())
        environment = announced["environment"]
        yield Project(folder=project.folder, path=project.path, environment=environment), printed


def test_the_printed_call_works(running: tuple[Project, str]) -> None:
    project, printed = running
    (line,) = [line for line in printed.splitlines() if line.startswith("curl ")]
    assert json.loads(project.run("sh", "-c", line))["success"] is True
    (line,) = [line for line in printed.splitlines() if "callboard' call " in line]
    assert json.loads(project.run("sh", "-c", line))["success"] is True


def test_the_commands_work(running: tuple[Project, str]) -> None:
    project, _ = running
    assert "FAIL" not in project.run("callboard", "doctor")
    assert "sayHello" in project.run("callboard", "client", "--lang", "ts")
    assert "alice" in project.run("callboard", "runs")


def test_its_tests_pass(project: Project) -> None:
    assert "1 passed" in project.run("pytest", "-q")


def test_web_answers_calls(running: tuple[Project, str]) -> None:
    project, _ = running
    url = f"http://127.0.0.1:{_free_port()}"
    with project.running("callboard", "web", "--bind", url[7:]) as wait_for:
        wait_for("Booting worker")
        token = project.run("callboard", "token", "alice").strip()
        with httpx.Client(transport=httpx.HTTPTransport(retries=8), timeout=60) as client:
            answer = client.post(
                f"{url}/api/actions/sayHello",
                json={"name": "Ada"},
                headers={"Authorization": f"Bearer {token}"},
            )
        assert answer.json()["data"] == {"text": "Hello, Ada, from alice"}


def test_worker_and_beat_start(running: tuple[Project, str]) -> None:
    project, _ = running
    with project.running("callboard", "worker", "--hostname", "second@here") as wait_for:
        wait_for("worker ready")
    with project.running("callboard", "beat") as wait_for:
        wait_for("beat ready")


def test_flower_is_read_only_and_for_this_machine(running: tuple[Project, str]) -> None:
    project, _ = running
    url = f"http://127.0.0.1:{_free_port()}"
    with project.running("callboard", "flower", f"--port={url.rpartition(':')[2]}") as wait_for:
        assert f"Visit me at {url}" in wait_for("Visit me at")
        assert httpx.post(f"{url}/api/worker/shutdown/any").status_code in (401, 403, 405)


def test_the_standard_commands_know_the_package(running: tuple[Project, str]) -> None:
    project, _ = running
    told = project.fails("gunicorn", "--config", "/dev/null", "callboard.api:create_app()")
    assert "callboard web" in told
    assert "pong" in project.run("celery", "-A", "callboard.worker", "inspect", "ping")


def test_their_own_packages_are_theirs(project: Project) -> None:
    if (project.folder / "worker").exists():
        found = project.run("python", "-c", "import callboard.worker, worker; print(worker.app)")
        assert "theirs" in found
