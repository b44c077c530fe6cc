"""Releasing: runs that waited for their time are queued when it has come."""

from __future__ import annotations

from callboard.runs.store import Runs

__all__ = ["RELEASE_SECONDS", "Releasing"]

RELEASE_SECONDS = 0.1  # between two looks: by so much a run may be late
BATCH = 500  # runs in one script: it must not keep others waiting
MOST = 20  # batches in a turn


class Releasing:
    """Any worker releases for all: of two that do at once, each queues what the other has not."""

    def __init__(self, runs: Runs, max_queue: int) -> None:
        self._runs = runs
        self._max_queue = max_queue

    def turn(self) -> None:
        """Queue what is due. Raises `BrokerUnavailable`."""
        for _ in range(MOST):
            if self._runs.release(BATCH, self._max_queue) < BATCH:
                return
