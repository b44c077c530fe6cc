"""Task events: what the child that executes a run sends Flower about it.

They are Celery's own events, sent by Celery's dispatcher, ten times a second at most: for people
who watch, a tenth of a second makes no difference, and sending each by itself costs three
publications a run. A thread sends them, so that a broker that hangs holds no run up.

Redis says how many heard them. While nobody does, nothing is sent but now and then, to find out
when somebody begins to listen: writing events costs a fifth of what a child does for a run.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import signals
from kombu.transport import redis as kombu_redis

from callboard.processes.threads import supervise
from callboard.runs.message import Wakeup

from ..runs.attempt import Delivered

__all__ = ["Channel", "TaskEvents", "Transport"]

PAUSE_SECONDS = 0.1
KEPT = 10_000  # events, while the broker is away
UNHEARD_SECONDS = 1.0  # for which nothing is sent once nobody has heard


class Channel(kombu_redis.Channel):
    """kombu's channel, which counts who hears what it publishes."""

    heard: int | None = None  # by how many, since somebody put None here; None: nothing was sent

    @contextmanager
    def conn_or_acquire(self, client: Any = None) -> Iterator[Any]:
        """Called by kombu for a client to publish with."""
        with super().conn_or_acquire(client) as publisher:
            publisher.set_response_callback("PUBLISH", self._count)
            yield publisher

    def _count(self, heard: int, **_: Any) -> int:
        self.heard = heard + (self.heard or 0)
        return heard


class Transport(kombu_redis.Transport):
    """kombu's transport with that channel."""

    Channel = Channel


class TaskEvents:
    """The events of one child; nothing where `worker_send_task_events` is off."""

    def __init__(self, app: Any, hostname: str) -> None:
        self._enabled = bool(app.conf.worker_send_task_events)
        self._pending = threading.Event()
        self._unheard_until = 0.0  # time.monotonic seconds
        if self._enabled:
            self._dispatcher = app.events.Dispatcher(
                app.connection_for_write(transport=f"{__name__}:Transport"),
                hostname=hostname,
                buffer_group={"task"},
                buffer_limit=KEPT,
                on_send_buffered=self._pending.set,
            )
            supervise("task events", self._send, threading.Event())
            signals.worker_process_shutdown.connect(self._flush, weak=False)

    @property
    def is_unheard(self) -> bool:
        """Whether nobody has heard the last event, sent a moment ago."""
        return time.monotonic() < self._unheard_until

    def started(self, wakeup: Wakeup) -> None:
        """The child has the run in hand."""
        self._emit(
            "task-received",
            wakeup.run_id,
            name=wakeup.task,
            args="()",
            kwargs=wakeup.display,
            root_id=wakeup.run_id,
            parent_id=None,
            retries=0,
            eta=None,
            expires=None,
        )
        self._emit("task-started", wakeup.run_id)

    def ended(self, wakeup: Wakeup, delivered: Delivered, seconds: float) -> None:
        """The run has ended or is queued again; of one that was not for us, others send it."""
        if delivered.end == "succeeded":
            self._emit("task-succeeded", wakeup.run_id, result="None", runtime=seconds)
        elif delivered.end:
            fields = {"exception": delivered.error, "traceback": None}
            self._emit(f"task-{delivered.end}", wakeup.run_id, **fields)

    def _emit(self, kind: str, run_id: str, **fields: Any) -> None:
        if self._enabled and not self.is_unheard:
            self._dispatcher.send(kind, uuid=run_id, **fields)

    def _send(self) -> None:
        while True:
            self._pending.wait()
            time.sleep(PAUSE_SECONDS)
            self._pending.clear()
            self._flush()

    def _flush(self, **_: Any) -> None:
        self._dispatcher.producer.channel.heard = None
        self._dispatcher.flush()
        if self._dispatcher.producer.channel.heard == 0:
            self._unheard_until = time.monotonic() + UNHEARD_SECONDS
