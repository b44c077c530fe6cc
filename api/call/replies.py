"""The reply channel: how waiting requests learn that their runs ended.

Each API process has one channel and one connection (`api.call.multiplexer`). A worker that ends a
run publishes the sealed result on the channel; the multiplexer's reader hands it to the request
that waits.

Publishing is the fast path only, the run record is the truth: after each reconnect, and every
few seconds, the reader looks up the records of all that still wait.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Container
from typing import Any

import redis

from callboard.runs.scripts import scripts
from callboard.runs.seal import Call
from callboard.runs.store import Runs
from callboard.sdk.action import Action

from .multiplexer import Multiplexer
from .submission import Submission
from .waiting import Waiting, Watcher

__all__ = ["Replies"]

RUN_ID_LENGTH = 36


class Replies:
    """What this process submits and watches."""

    def __init__(self, client: redis.Redis, runs: Runs) -> None:
        self._redis = client
        self._runs = runs
        self._waiting = Waiting()
        self._lock = threading.Lock()
        self._multiplexer: Multiplexer | None = None
        self.channel = ""

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def is_over(self) -> bool:
        """Whether nobody waits any more: the process is about to stop."""
        return self._waiting.is_over

    def submit(self, run_id: str, action: Action, call: Call, **options: Any) -> Submission:
        """A new run, which is enqueued as the ``with`` block of what is returned begins.

        ``options``: those of `Runs.acceptance`.
        """
        multiplexer = self._multiplexer or self._start()
        keys, arguments = self._runs.acceptance(run_id, action, call, reply=self.channel, **options)
        command = self._runs.command("accept", keys, arguments)
        return Submission(run_id, action.name, command, self._waiting, self._runs, multiplexer)

    def watch(self, run_id: str) -> Watcher:
        """A `Watcher` of this run, registered inside its ``with`` block."""
        if self._multiplexer is None:
            self._start()
        return Watcher(run_id, self._waiting)

    def let_go(self) -> None:
        """End every wait, also those that are still to begin: the runs go on without them."""
        self._waiting.end()

    def hung_up(self, threads: Container[int]) -> None:
        """End the waits of these threads: their clients are gone. The runs go on."""
        self._waiting.hung_up(threads)

    def close(self) -> None:
        """End the multiplexer; whoever still waits hears nothing more."""
        if self._multiplexer:
            self._multiplexer.close()

    def _start(self) -> Multiplexer:
        """Start the multiplexer on first use: a forked server process has one of its own."""
        with self._lock:
            if self._multiplexer is None:
                self.channel = self._runs.keys.reply(f"{os.getpid()}-{uuid.uuid4().hex}")
                self._multiplexer = Multiplexer(
                    self._redis,
                    self.channel,
                    scripts=[scripts(self._runs.keys)["accept"]],
                    on_message=self._dispatch,
                    on_interval=self._catch_up,
                    on_open=self._notify_watchers,
                )
            return self._multiplexer

    # Called by the multiplexer's reader

    def _dispatch(self, message: bytes) -> None:
        run_id = message[:RUN_ID_LENGTH].decode(errors="replace")
        self._waiting.notify(run_id, message[RUN_ID_LENGTH:])

    def _notify_watchers(self) -> None:
        """What changed before was published to nobody."""
        for waiter in self._waiting.all():
            if isinstance(waiter, Watcher):
                waiter.notify(None)

    def _catch_up(self) -> None:
        """Look up what a lost publish would have brought."""
        waiting = list(self._waiting.by_run)
        for start in range(0, len(waiting), 500):
            for run_id, sealed in self._runs.results(waiting[start : start + 500]).items():
                self._waiting.notify(run_id, sealed)
