"""The four programs: web, worker, beat and Flower, and the command that runs each."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NoReturn

from callboard.errors import ConfigurationError
from callboard.layout import API, FLOWER, GUNICORN, INSTALLED, REPOSITORY, WORKER

__all__ = ["Name", "command", "run"]

Name = Literal["web", "worker", "beat", "flower"]


def command(name: Name, *flags: str) -> list[str]:
    """The command line of a program, with Callboard's settings; ``flags`` win over them.

    Works in every folder: Python finds the application's modules in the working directory.
    Raises `ConfigurationError` where a folder of the application would be started instead, or the
    extra `server` is not installed.
    """
    python = (sys.executable, "-m")
    _require_installed("gunicorn" if name == "web" else "celery")
    if name == "web":
        _require_ours(API)
        return [*python, "gunicorn", "--config", str(GUNICORN), f"{API}:create_app()", *flags]
    _require_ours(WORKER)
    ours = {"beat": ("--loglevel", "INFO"), "flower": (f"--conf={FLOWER}",)}.get(name, ())
    return [*python, "celery", "-A", WORKER, name, *ours, *flags]


def run(name: Name, flags: Sequence[str]) -> NoReturn:
    """Become the program: the process id stays, and signals reach it."""
    line = command(name, *flags)
    os.execv(line[0], line)  # noqa: S606 - a Python of ours


def _require_installed(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise ConfigurationError(
            f"{module} is not installed; it comes with the extra `server`: "
            f"pip install 'callboard[server]'"
        )


def _require_ours(package: str) -> None:
    """From the repository only: its packages have names that others use, too."""
    theirs = Path.cwd() / package
    if not INSTALLED and theirs.exists() and not theirs.samefile(REPOSITORY / package):
        raise ConfigurationError(
            f"{theirs} has the name of Callboard's own {package}/ in its repository, which this "
            f"environment runs from. Install Callboard as a package (`pip install {REPOSITORY}`, "
            f"without -e), or start from another folder."
        )
