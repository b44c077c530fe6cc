"""The four programs: where their code and their settings are, and the command that runs each.

In the wheel the front end and the worker are `callboard.api` and `callboard.worker`, so that an
application's own `api` or `worker` stays its own; in the repository both are top-level folders.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NoReturn

from callboard.errors import ConfigurationError

__all__ = ["API", "WORKER", "Name", "command", "run"]

Name = Literal["web", "worker", "beat", "flower"]

_HERE = Path(__file__).parent
_REPOSITORY = _HERE.parent
_INSTALLED = (_HERE / "worker").is_dir()

API = f"{__package__}.api" if _INSTALLED else "api"
"""The package of the front end."""
WORKER = f"{__package__}.worker" if _INSTALLED else "worker"
"""The package of the Celery application."""

GUNICORN = _HERE / "api/gunicorn_conf.py" if _INSTALLED else _REPOSITORY / "gunicorn.conf.py"
FLOWER = _HERE / "worker/flowerconfig.py" if _INSTALLED else _REPOSITORY / "flowerconfig.py"


def command(name: Name, *flags: str) -> list[str]:
    """The command line of a program, with Callboard's settings; ``flags`` win over them.

    Works in every folder: Python finds the application's modules in the working directory.
    Raises `ConfigurationError` where a folder of the application would be started instead.
    """
    python = (sys.executable, "-m")
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


def _require_ours(package: str) -> None:
    """From the repository only: its packages have names that others use, too."""
    theirs = Path.cwd() / package
    if not _INSTALLED and theirs.exists() and not theirs.samefile(_REPOSITORY / package):
        raise ConfigurationError(
            f"{theirs} has the name of Callboard's own {package}/ in its repository, which this "
            f"environment runs from. Install Callboard as a package (`make wheel` builds it), or "
            f"start from another folder."
        )
