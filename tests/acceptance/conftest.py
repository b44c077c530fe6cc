"""Fixtures: the real `callboard up`, called over HTTP."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from browser import browser, open_page  # noqa: F401 - fixtures
from local_stack import Stack, started


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One stack for all tests that only call it."""
    with started(tmp_path_factory.mktemp("up")) as stack:
        stack.wait_ready()
        yield stack


@pytest.fixture(scope="session")
def app_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One stack that runs the actions of ``app/``, beside this file."""
    here = str(Path(__file__).parent)
    folder = tmp_path_factory.mktemp("app")
    with started(folder, CALLBOARD_ACTIONS="app", PYTHONPATH=here) as stack:
        stack.wait_ready()
        yield stack


@pytest.fixture(scope="session")
def one_child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose worker has one child: what comes while it is busy waits for it."""
    here = str(Path(__file__).parent)
    variables = {"CALLBOARD_ACTIONS": "app", "PYTHONPATH": here, "CALLBOARD_RECOVERY": "5"}
    folder = tmp_path_factory.mktemp("turns")
    flags = ("--workers", "1")
    with started(folder, *flags, **variables, FLOWER_UNAUTHENTICATED_API="true") as stack:
        stack.wait_ready()
        yield stack


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Stack]]:
    """Start a stack of the test's own: ``start("--reload", cwd=folder)``."""
    with ExitStack() as stacks:

        def run(*flags: str, **options: Any) -> Stack:
            return stacks.enter_context(started(tmp_path, *flags, **options))

        yield run


@pytest.fixture(scope="session")
def tsc(program: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The TypeScript compiler, in a folder of its own."""
    program("node")
    npm = program("npm")
    folder = tmp_path_factory.mktemp("npm")
    packages = ["typescript@^5.8", "@types/node@^20"]
    install = [npm, "install", "--no-audit", "--no-fund", "--silent", *packages]
    subprocess.run(install, cwd=folder, check=True, capture_output=True, timeout=600)
    types = folder / "node_modules" / "@types"
    return [str(folder / "node_modules" / ".bin" / "tsc"), "--typeRoots", str(types)]
