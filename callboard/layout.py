"""Where Callboard's parts are: in the wheel, or in its repository.

In the wheel the front end and the worker are `callboard.api` and `callboard.worker`, so that an
application's own `api` or `worker` stays its own; in the repository both are top-level folders.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["API", "FLOWER", "GUNICORN", "INSTALLED", "REPOSITORY", "WORKER", "shipped"]

_HERE = Path(__file__).parent

REPOSITORY = _HERE.parent
"""The repository's folder, where Callboard is not installed from a wheel."""
INSTALLED = (_HERE / "worker").is_dir()
"""Whether this is the wheel's."""
API = f"{__package__}.api" if INSTALLED else "api"
"""The package of the front end."""
WORKER = f"{__package__}.worker" if INSTALLED else "worker"
"""The package of the Celery application."""


def shipped(in_wheel: str, in_repository: str) -> Path:
    """A file that the wheel holds under `callboard`, the repository elsewhere (pyproject.toml)."""
    return _HERE / in_wheel if INSTALLED else REPOSITORY / in_repository


GUNICORN = shipped("api/gunicorn_conf.py", "gunicorn.conf.py")
"""What gunicorn reads."""
FLOWER = shipped("worker/flowerconfig.py", "flowerconfig.py")
"""What Flower reads."""
