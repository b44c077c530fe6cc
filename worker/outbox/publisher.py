"""The publisher: a thread of the worker's main process that publishes what is left in the outbox.

A process that commits a start publishes it itself; one that dies between the two leaves a row. And
Redis may lose its data: then the mark is gone that says that it knows of every row, and all rows
are published anew. Any number of workers may do so at once.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import structlog
from celery import bootsteps

from callboard.clock import DatabaseClock
from callboard.connections.mongodb import Document
from callboard.connections.redis import guarded
from callboard.errors import CallboardError, LimitKeyFailed, QueueFull, RunRefused
from callboard.processes.threads import supervise
from callboard.runs.outbox import Outbox, Row, is_elsewhere
from callboard.runs.store import Accepted, Runs

from ..loop.step import LoopStep
from ..services import Services

__all__ = ["Publisher", "PublisherStep"]

TURN_SECONDS = 2.0
BATCH = 250  # rows
FULL_AGAIN = timedelta(seconds=1)  # until a row is tried again whose queue is full
UNREADABLE_AGAIN = timedelta(minutes=1)  # that no action here is for, or no key opens

_log = structlog.get_logger("callboard.worker")


class Publisher:
    """Publishes rows, a batch at a time."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._settings = services.settings
        self._redis = services.connect()
        self._runs = Runs(self._redis, services.sealer, services.keys)
        self._mark = services.keys.outbox
        self._outbox = Outbox(services.store.database, services.sealer)
        self._clock = DatabaseClock(services.store.database).passed
        self._stopped = threading.Event()
        self._prepared = False

    def start(self) -> None:
        """Start the thread."""
        supervise("outbox", self._run, self._stopped)

    def stop(self) -> None:
        """Let the thread end."""
        self._stopped.set()

    def turn(self) -> int:
        """One batch; returns how many rows. Raises `CallboardError`: then try again."""
        if not self._prepared:
            self._outbox.prepare()
            self._prepared = True
        with guarded(self._mark):
            known = self._redis.exists(self._mark)
        if not known:
            self._publish_all()
        now = self._clock()
        rows = self._outbox.waiting(now, BATCH)
        self.publish(rows, now)
        return len(rows)

    def publish(self, documents: Sequence[Document], now: datetime) -> None:
        """Have the runs of these rows in Redis, unless they have ended already."""
        actions = self._services.registry.actions
        rows = {str(row["_id"]): self._outbox.opened(row, actions) for row in documents}
        again = {run_id: now + UNREADABLE_AGAIN for run_id, row in rows.items() if row is None}
        if again:
            _log.warning("rows of the outbox that cannot be read here", rows=len(again))
        read = {run_id: row for run_id, row in rows.items() if row is not None}
        known = self._runs.present(list(read))
        missing = [run_id for run_id in read if run_id not in known]
        ended = self._outbox.ended(missing)
        answers = self._accept({i: read[i] for i in missing if i not in ended}, now)
        for run_id, row in read.items():
            if isinstance(answers.get(run_id), QueueFull):
                again[run_id] = now + FULL_AGAIN
            elif isinstance(answers.get(run_id), LimitKeyFailed):  # which the log tells
                again[run_id] = now + UNREADABLE_AGAIN
            elif is_elsewhere(run_id, answers.get(run_id)):
                continue
            elif row.due is not None and row.due > now and run_id not in ended:
                again[run_id] = row.due
        self._outbox.drop([run_id for run_id in rows if run_id not in again])
        self._outbox.postpone(again)

    def _accept(self, rows: Mapping[str, Row], now: datetime) -> dict[str, Accepted | RunRefused]:
        starts = [row.at(now) for row in rows.values()]
        answers = self._runs.accept_many(starts, **self._settings.of_accepting)
        return dict(zip(rows, answers, strict=True))

    def _publish_all(self) -> None:
        """Redis knows of no row: tell it of each."""
        last, count = "", 0
        while rows := self._outbox.after(last, BATCH):
            self.publish(rows, self._clock())
            last, count = str(rows[-1]["_id"]), count + len(rows)
            if self._stopped.is_set():
                return
        with guarded(self._mark):
            self._redis.set(self._mark, 1)
        if count:
            _log.warning("the outbox was published anew: Redis had none of it", rows=count)

    def _run(self) -> None:
        with contextlib.closing(self._runs):
            while not self._stopped.is_set():
                pause = TURN_SECONDS
                try:
                    if self.turn() == BATCH:
                        pause = 0.0
                except CallboardError as error:
                    _log.warning("outbox waits", why=str(error))
                self._stopped.wait(pause)


class PublisherStep(bootsteps.StartStopStep):
    """Starts the publisher once the pool runs, and stops it before."""

    requires = ("celery.worker.components:Pool", LoopStep)

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        self._publisher = Publisher(worker.app.services)

    def start(self, worker: Any) -> None:
        """Called by Celery."""
        self._publisher.start()

    def stop(self, worker: Any) -> None:
        """Called by Celery."""
        self._publisher.stop()
