"""A real `callboard up` as these tests run it: `LiveStack`, and its processes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import httpx

from callboard.testing.live import LiveStack

ROOT = Path(__file__).parents[2]
PATIENCE = (
    60  # seconds in which whatever a test waits for is there, on a slow and busy machine, too
)
STOP = 20.0  # seconds: Ctrl-C promises half of it, on a machine at rest


class Stack(LiveStack):
    """A `callboard up` that was started."""

    def descendants(self) -> dict[int, str]:
        """Every process below it: id -> command line (Linux)."""
        return dict(_below(self.process.pid))

    def run(self, run_id: str) -> dict[str, Any]:
        """The run as its caller sees it; waits until it has ended, or `PATIENCE`."""
        return self._ask("GET", f"{run_id}?wait={PATIENCE}")

    def status(self, run_id: str) -> str:
        """What the run is at now."""
        status: str = self._ask("GET", run_id)["status"]
        return status

    def wait_for_status(self, run_id: str, status: str) -> None:
        """Return when the run has this status; fails after `PATIENCE`."""
        deadline = time.monotonic() + PATIENCE
        while (now := self.status(run_id)) != status:
            assert time.monotonic() < deadline, f"{now}, not {status}"
            time.sleep(0.02)

    def cancel(self, run_id: str) -> None:
        """Cancel it and wait until it has ended so."""
        self._ask("POST", f"{run_id}/cancel")
        assert self.run(run_id)["status"] == "canceled"

    def _ask(self, method: str, path: str) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self.token()}"}
        url = f"{self.url}/api/runs/{path}"
        answer = httpx.request(method, url, headers=headers, timeout=2 * PATIENCE).json()
        data: dict[str, Any] = answer["data"]
        return data


def _below(parent: int) -> Iterator[tuple[int, str]]:
    with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        for child in map(int, children):
            with suppress(FileNotFoundError, ProcessLookupError):
                command = Path(f"/proc/{child}/cmdline").read_bytes()
                yield child, command.replace(b"\0", b" ").decode()
                yield from _below(child)


def started(
    folder: Path, *flags: str, cwd: Path = ROOT, **variables: Any
) -> AbstractContextManager[Stack]:
    """Run `callboard up` on free ports with a data folder of its own; ended with the block."""
    return Stack.started(folder, *flags, cwd=cwd, **variables)
