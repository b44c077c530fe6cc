"""The archiver: a thread of the worker's main process that moves ended runs into the history.

It has connections of its own and a thread of its own, because the database may hang and the
keeper must not. As long as runs end one after the other it moves few at a time, so that in a burst
the database is there for the handlers; it stays less than about half a minute behind.

Until a run is in the history its record stays in Redis, so nothing is lost while the database is
away or no worker runs; the next archiver goes on where one stopped.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Any

import structlog
from bson.errors import InvalidDocument
from celery import bootsteps

from callboard.errors import CallboardError
from callboard.processes.threads import supervise
from callboard.runs.ended import Ended, EndedRun
from callboard.runs.format import PLAIN, newer
from callboard.runs.history import KEPT_SECONDS, Document, History
from callboard.runs.outbox import Outbox
from callboard.runs.outcome import WORKER_LOST

from ..loop.step import LoopStep
from ..services import Services

__all__ = ["Archiver", "ArchiverStep"]

TURN_SECONDS = 0.5
AGAIN_SECONDS = 2.0  # while the database or the broker is away
MINE_SECONDS = 10  # how long another worker's archiver stays idle after this one's last turn
HOUR = timedelta(hours=1)
BATCH = 500  # runs
FEW = 100  # runs of a turn in a burst
BEHIND_SECONDS = 30.0  # after which a burst is not waited out
LOST_KEPT_SECONDS = 7 * 86_400  # how long a lost run's record stays, for `callboard runs retry`

_PLAIN = b"%d" % PLAIN

_log = structlog.get_logger("callboard.worker")


class Archiver:
    """Moves ended runs, a batch at a time."""

    def __init__(
        self, services: Services, history: History, outbox: Outbox, keep_params: int
    ) -> None:
        self._holder = services.worker_id
        self._services = services
        self._kept = timedelta(days=keep_params)
        self._dropped = datetime.now(UTC) - timedelta(seconds=KEPT_SECONDS)  # params, until then
        self._ended = Ended(services.connect(), services.keys)
        self._history = history
        self._outbox = outbox
        self._stopped = threading.Event()
        self._prepared = False
        self._waiting = 0  # runs, at the last turn
        self._pause = TURN_SECONDS

    def start(self) -> None:
        """Start the thread."""
        supervise("archiver", self._run, self._stopped)

    def stop(self) -> None:
        """Let the thread end; a batch that it has in hand is taken again by another."""
        self._stopped.set()

    def turn(self) -> int:
        """Move one batch; returns how many runs. Raises `CallboardError`: then try again."""
        taken = self._known(self._ended.take(self._holder, MINE_SECONDS, self._count()))
        if not taken:
            return 0
        if not self._prepared:
            self._history.prepare()
            self._prepared = True
        documents = self._documents(taken)
        if documents:
            again = frozenset(run.run_id for run in taken if b"restarted" in run.values)
            self._write(list(documents.values()), again)
            self._outbox.drop([run.run_id for run in taken if _was_started(run)])
        lost = {run_id for run_id, row in documents.items() if row["error"] == WORKER_LOST}
        kept = [(run, LOST_KEPT_SECONDS if run.run_id in lost else 0) for run in taken]
        settled = self._ended.settle(kept)
        self._drop_params()
        return settled

    def _write(self, documents: list[Document], again: frozenset[str]) -> None:
        """What a document of the history cannot hold, somebody has put there: it is dropped."""
        try:
            self._history.write(documents, again)
        except InvalidDocument as error:
            if len(documents) == 1:
                _drop(str(documents[0]["_id"]), error)
                return
            for document in documents:
                self._write([document], again)

    def _known(self, taken: list[EndedRun]) -> list[EndedRun]:
        """Those before the first that a newer version wrote: from there it is a newer worker's
        turn."""
        known = list(takewhile(lambda run: not newer(run.values.get(b"v")), taken))
        self._pause = TURN_SECONDS
        if taken and not known:
            self._services.leave("ended runs")
            self._ended.pass_on()
            self._pause = MINE_SECONDS
        return known

    def _drop_params(self) -> None:
        """Have the history forget the params of another hour, once their days are over."""
        until = self._dropped + HOUR
        if until <= datetime.now(UTC) - self._kept:
            self._history.drop_params(self._dropped, until)
            self._dropped = until

    def _count(self) -> int:
        """How many runs this turn may move."""
        before, (self._waiting, behind) = self._waiting, self._ended.backlog()
        burst = self._waiting > before and behind < BEHIND_SECONDS
        return FEW if burst else BATCH

    def _documents(self, taken: Sequence[EndedRun]) -> dict[str, Document]:
        """By run id; a record that was tampered with is dropped, and told."""
        documents: dict[str, Document] = {}
        for run in taken:
            if not run.values:
                continue
            try:
                documents[run.run_id] = self._history.document(run)
            except Exception as error:  # noqa: BLE001 - one record must not keep the others out
                _drop(run.run_id, error)
        return documents

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                pause = 0.0 if self.turn() == BATCH else self._pause
            except CallboardError as error:
                _log.warning("archiver waits", why=str(error))
                pause = AGAIN_SECONDS
            self._stopped.wait(pause)


def _was_started(run: EndedRun) -> bool:
    """Whether it may have a row in the outbox, that now has to go: no plain call has."""
    return run.values.get(b"v", _PLAIN) != _PLAIN


def _drop(run_id: str, error: Exception) -> None:
    _log.warning("not for the history", run_id=run_id, why=type(error).__name__)


class ArchiverStep(bootsteps.StartStopStep):
    """Starts the archiver once the pool runs, and stops it before."""

    requires = ("celery.worker.components:Pool", LoopStep)

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        services = worker.app.services
        keep = services.settings.keep_params
        history = History(services.store.database, services.sealer, keep_params=keep > 0)
        outbox = Outbox(services.store.database, services.sealer)
        self._archiver = Archiver(services, history, outbox, keep)

    def start(self, worker: Any) -> None:
        """Called by Celery."""
        self._archiver.start()

    def stop(self, worker: Any) -> None:
        """Called by Celery."""
        self._archiver.stop()
