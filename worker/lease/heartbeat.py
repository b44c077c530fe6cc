"""The heartbeat: shows that this worker lives and is ready, or why it is not.

It also says by how much the machine's clock is ahead of the broker's, for `callboard doctor`.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from functools import partial

import redis

from callboard.clock import ClockWatch, ahead_of_broker
from callboard.connections import heartbeat
from callboard.processes import threads

from ..hooks.reports import Reports
from .slots import Slots

__all__ = ["Heartbeat"]

PAUSE_SECONDS = 1.0
ALIVE_SECONDS = 5  # how long the worker's sign of life is good for
REPLACED_TURNS = 3  # that a loop process may be away while it is replaced


class Heartbeat:
    """Of one worker. ``key``: what it is seen under; ``queues``: what it takes runs from;
    ``slots``: those of its loop processes; ``hooks``: what its processes tell of their hook."""

    def __init__(
        self,
        client: redis.Redis,
        key: str,
        queues: Sequence[str],
        slots: Sequence[Slots] = (),
        hooks: Reports | None = None,
    ) -> None:
        self._redis = client
        self._key = key
        self._queues = list(queues)
        self._slots = slots
        self._hooks = hooks
        self._empty = 0  # turns in a row without one of the loop processes
        self._watch = ClockWatch("broker")

    def turn(self) -> None:
        """Show it once. Raises `BrokerUnavailable`."""
        waiting = self._hooks.waiting() if self._hooks else []
        if down := [*threads.down(), *self._loops_down(), *waiting]:
            why = f"failed: {', '.join(down)}"
            heartbeat.show_unready(self._redis, self._key, why, ALIVE_SECONDS)
            return
        ahead = ahead_of_broker(self._redis)
        self._watch.note(ahead)
        content = {"pid": os.getpid(), "queues": self._queues, "ahead": round(ahead, 1)}
        heartbeat.show(self._redis, self._key, json.dumps(content), ALIVE_SECONDS)

    def _loops_down(self) -> list[str]:
        """What to call a loop process that does not come back: one that is replaced does."""
        self._empty = 0 if all(slots.pid for slots in self._slots) else self._empty + 1
        return ["loop process"] if self._empty >= REPLACED_TURNS else []

    def run(self, stopped: threading.Event) -> None:
        """Show it until ``stopped``, then be seen no more; the thread's function."""
        threads.repeat("heartbeat", self.turn, partial(stopped.wait, PAUSE_SECONDS), stopped)
        with threads.tolerant("heartbeat"):
            heartbeat.forget(self._redis, self._key)
