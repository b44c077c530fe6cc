"""The fence: the child of a claim that cannot be renewed is killed before the claim lapses.

Then another worker may take the run. The fence asks nobody, so nothing that is away can stop it.
"""

from __future__ import annotations

import time

import structlog

from .held import HeldRuns

__all__ = ["FENCE_SECONDS", "Fence"]

FENCE_SECONDS = 0.3  # before its claim lapses, a child is killed

_log = structlog.get_logger("callboard.worker")


class Fence:
    """Of one worker."""

    def __init__(self, held: HeldRuns) -> None:
        self._held = held

    def turn(self) -> None:
        """Kill the children whose claims are about to lapse."""
        lapsing = time.monotonic() + FENCE_SECONDS
        for held in self._held.all():
            if held.lapses_at <= lapsing and self._held.kill(held):
                _log.warning("claim not renewed", **held.names, pid=held.pid)
