"""Releasing: runs that waited for their time are queued when it has come, and those that waited for
a slot when a window of their limit's rate has moved on."""

from __future__ import annotations

from collections.abc import Mapping

from callboard.runs.store import Runs

__all__ = ["RELEASE_SECONDS", "Releasing"]

RELEASE_SECONDS = 0.1  # between two looks: by so much a run may be late
BATCH = 500  # runs in one script: it must not keep others waiting
MOST = 20  # batches in a turn


class Releasing:
    """Any worker releases for all: of two that do at once, each queues what the other has not.

    ``limits``: those of this worker's code, by action (`Limit.numbers`). They count from its start
    on: the worker that was started last tells.
    """

    def __init__(self, runs: Runs, max_queue: int, limits: Mapping[str, str] | None = None) -> None:
        self._runs = runs
        self._max_queue = max_queue
        self._limits = limits  # None: Redis knows of them

    def turn(self) -> None:
        """Queue what is due. Raises `BrokerUnavailable`."""
        if self._limits is not None:
            self._runs.set_limits(self._limits)
            self._limits = None
        for _ in range(MOST):
            if self._runs.release(BATCH, self._max_queue) < BATCH:
                break
        for _ in range(MOST):
            if self._runs.admit(BATCH) < BATCH:
                break
