"""Consuming: what a child does with one task of Celery's.

It runs the run of the message and then, by itself, what waits behind it: it requests the next
message together with ending the run before (`Runs.finish_and_request`), and waits a moment where
there is none. Celery's main process, which would cost more than the rest of the worker together,
sees one message per task. Each message is checked as in `worker.pool.tasks`.

The keeper sees in `worker.lease.scoreboard` what a child executes; a requested stop ends the
task.
"""

from __future__ import annotations

import os
import time
from collections import deque
from functools import cache, partial
from typing import Any

from callboard.errors import BrokerUnavailable
from callboard.runs.message import Wakeup
from callboard.runs.store import ReceiveMessage

from ..pool.task_events import TaskEvents
from .execution import execute

__all__ = ["consume"]

CONSUME_SECONDS = 2.0  # then Celery looks at the child's memory, and serves other queues


def consume(app: Any, hostname: str, first: Wakeup) -> None:
    """Run the run of ``first``, and go on until the queue is empty or the time is over."""
    _child(app, hostname, os.getpid()).consume(first)


@cache
def _child(app: Any, hostname: str, pid: int) -> _Child:
    """Of this process; ``pid`` tells it from the one that it was forked from."""
    return _Child(app, hostname)


class _Child:
    def __init__(self, app: Any, hostname: str) -> None:
        self._services = app.services
        self._keys = app.services.keys
        self._queues = deque(map(self._keys.queue, app.amqp.queues.consume_from))  # their lists
        self._events = TaskEvents(app, hostname)
        self._actions = {action.task: action for action in app.services.registry.actions.values()}

    def consume(self, first: Wakeup) -> None:
        ends_at = time.monotonic() + CONSUME_SECONDS
        try:
            receive = self._run(first, ends_at)
            while receive and (message := receive()) is not None:
                wakeup, _ = self._services.read(message) or (None, None)
                if wakeup and self._services.scoreboard.closed:  # since the message was requested
                    queue = self._keys.queue(self._actions[wakeup.task].message_queue)
                    self._services.runs.put_back(queue, message)
                    return
                receive = self._run(wakeup, ends_at) if wakeup else self._request(ends_at)
        except BrokerUnavailable:
            return  # nothing is in hand; Celery waits until it is back

    def _run(self, wakeup: Wakeup, ends_at: float) -> ReceiveMessage | None:
        """Run the run, and request the next message; None at the end of the task."""
        action, queues = self._actions[wakeup.task], partial(self._open_queues, ends_at)
        if action.is_async:  # it was not when the run was accepted
            self._services.pass_on(wakeup)
            return self._request(ends_at)
        started = time.monotonic()
        self._events.started(wakeup)
        delivered = execute(self._services, action, wakeup.run_id, queues)
        self._events.ended(wakeup, delivered, time.monotonic() - started)
        return delivered.receive or self._request(ends_at)

    def _request(self, ends_at: float) -> ReceiveMessage | None:
        queues = self._open_queues(ends_at)
        return self._services.runs.request_message(queues) if queues else None

    def _open_queues(self, ends_at: float) -> tuple[str, ...]:
        """From which a further run may be taken now: each comes first in its turn."""
        if self._services.scoreboard.closed or time.monotonic() >= ends_at:
            return ()
        self._queues.rotate(-1)
        return tuple(self._queues)
