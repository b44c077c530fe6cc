"""Runs the load generator, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict

from benchmarks.load import Load, LoadResult
from callboard.errors import CallboardError

__all__ = ["generate"]


def generate(load: Load, name: str, meanwhile: Callable[[], None]) -> LoadResult:
    """What came of the load. ``meanwhile`` is called again and again until it is over.

    Raises `CallboardError`, which says that it was the load of ``name``.
    """
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.load"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as generator:
        assert generator.stdin is not None  # a pipe, as asked for above
        assert generator.stdout is not None
        with generator.stdin as given:
            json.dump(asdict(load), given)
        while generator.poll() is None:
            meanwhile()
        if generator.returncode:
            raise CallboardError(f"{name}: the load generator failed.")
        return LoadResult(**json.loads(generator.stdout.read()))
