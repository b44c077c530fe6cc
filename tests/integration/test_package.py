"""The wheel: what is in it, and that its programs are its own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from doc_pages import ROOT

from callboard.layout import API

TOLD = """
import json
from callboard.programs import command
print(json.dumps({name: command(name) for name in ("web", "worker", "beat", "flower")}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    flags = ["--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--quiet"]
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *flags, "--wheel-dir", folder, ROOT], check=True
    )
    (built,) = folder.glob("*.whl")
    return built


def test_it_holds_one_package(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"callboard"}
    assert not [name for name in names if "__pycache__" in name]


def test_it_holds_every_file_of_the_three_packages(
    wheel: Path, program: Callable[..., str]
) -> None:
    git = program("git")
    listed = subprocess.run(
        [git, "ls-files", "callboard", "api", "worker"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    names = set(zipfile.ZipFile(wheel).namelist())
    for file in listed.stdout.splitlines():
        assert (file if file.startswith("callboard/") else f"callboard/{file}") in names


def test_its_programs_are_those_in_it(wheel: Path, tmp_path: Path) -> None:
    """In a folder that has its own ``api`` and ``worker``."""
    installed, project = tmp_path / "installed", tmp_path / "project"
    zipfile.ZipFile(wheel).extractall(installed)
    for folder in ("api", "worker"):
        (project / folder).mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, "-c", TOLD],
        env={"PYTHONPATH": str(installed)},
        cwd=project, capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines: dict[str, list[str]] = json.loads(done.stdout)
    assert "callboard.api:create_app()" in lines["web"]
    assert all("callboard.worker" in lines[name] for name in ("worker", "beat", "flower"))
    files = [
        Path(word.removeprefix("--conf="))
        for line in lines.values()
        for word in line[1:]
        if word.endswith(".py")
    ]
    assert len(files) == 2
    assert all(file.is_relative_to(installed) and file.is_file() for file in files)


@pytest.mark.parametrize(
    "flags",
    [["--worker-class", "sync"], ["--worker-class", "gthread", "--threads", "8"],
     ["--worker-class", "gevent", "--preload"]],
)  # fmt: skip
def test_a_gunicorn_that_blocks_does_not_start(flags: list[str], variables: dict[str, str]) -> None:
    settings = ["--config", "/dev/null", "--bind", "127.0.0.1:0"]
    done = subprocess.run(
        [sys.executable, "-m", "gunicorn", f"{API}:create_app()", *settings, *flags],
        cwd=ROOT, env=variables, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode != 0
    assert "callboard web" in done.stderr


def test_the_sdk_the_client_and_the_command_line_load_no_extra() -> None:
    """What `pip install callboard` alone brings is enough to import them."""
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, callboard, callboard.cli, callboard.testing\n"
         "callboard.Client('http://127.0.0.1:1', 'x')\n"
         "print(*{name.partition('.')[0] for name in sys.modules})"],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [re.match(r"[\w-]+", line) for line in project["optional-dependencies"]["server"]]
    of_structlog = {"greenlet", "rich"}  # which it uses where they are
    extra = {name[0].lower() for name in names if name} - of_structlog
    assert len(extra) > 10
    of = packages_distributions()
    found = {each.lower() for module in loaded for each in of.get(module, [])}
    assert found.isdisjoint(extra)
