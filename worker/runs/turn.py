"""A turn: what a child does with one task of Celery's.

It runs the run of the message and then, by itself, what waits behind it: it asks for the next
message together with ending the run before (`Runs.finish_and_ask`), and waits a moment where there
is none. Celery's main process, which would cost more than the rest of the worker together, sees one
message a turn. Each message is checked as in `worker.pool.tasks`.

The keeper sees in `worker.lease.hands` what a child executes; a stop that was asked for ends the
turn.
"""

from __future__ import annotations

import os
import time
from collections import deque
from functools import cache, partial
from typing import Any

from callboard.errors import BrokerUnavailable
from callboard.runs.message import Wakeup
from callboard.runs.store import Take

from ..pool.task_events import TaskEvents
from .execution import execute

__all__ = ["take_turn"]

TURN_SECONDS = 2.0  # then Celery looks at the child's memory, and serves other queues


def take_turn(app: Any, hostname: str, first: Wakeup) -> None:
    """Run the run of ``first``, and go on until the queue is empty or the time is over."""
    _child(app, hostname, os.getpid()).take_turn(first)


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

    def take_turn(self, first: Wakeup) -> None:
        ends_at = time.monotonic() + TURN_SECONDS
        try:
            take = self._run(first, ends_at)
            while take and (message := take()) is not None:
                wakeup, _ = self._services.read(message) or (None, None)
                if wakeup and self._services.hands.closed:  # since the message was asked for
                    queue = self._keys.queue(self._actions[wakeup.task].message_queue)
                    self._services.runs.put_back(queue, message)
                    return
                take = self._run(wakeup, ends_at) if wakeup else self._ask(ends_at)
        except BrokerUnavailable:
            return  # nothing is in hand; Celery waits until it is back

    def _run(self, wakeup: Wakeup, ends_at: float) -> Take | None:
        """Run the run, and ask for the next message; None at the end of the turn."""
        action, queues = self._actions[wakeup.task], partial(self._open_queues, ends_at)
        if action.is_async:  # it was not when the run was accepted
            self._services.pass_on(wakeup)
            return self._ask(ends_at)
        started = time.monotonic()
        self._events.started(wakeup)
        delivered = execute(self._services, action, wakeup.run_id, queues)
        self._events.ended(wakeup, delivered, time.monotonic() - started)
        return delivered.take or self._ask(ends_at)

    def _ask(self, ends_at: float) -> Take | None:
        queues = self._open_queues(ends_at)
        return self._services.runs.ask(queues) if queues else None

    def _open_queues(self, ends_at: float) -> tuple[str, ...]:
        """From which a further run may be taken now: each comes first in its turn."""
        if self._services.hands.closed or time.monotonic() >= ends_at:
            return ()
        self._queues.rotate(-1)
        return tuple(self._queues)
