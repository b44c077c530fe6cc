"""`callboard up --reload`: a change of the actions package gets new processes."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from callboard.errors import ConfigurationError
from callboard.preflight import preflight
from callboard.stack.process import Process
from callboard.stack.programs import Application
from callboard.stack.supervisor import ProcessFailed, Supervisor
from callboard.threads import supervise

__all__ = ["Changes", "Reloader", "watched"]

READY_TIMEOUT = 30.0  # seconds for the new worker


class Changes:
    """Whether a Python file changed since the last look."""

    def __init__(self) -> None:
        self._seen = threading.Event()

    def note(self) -> None:
        """Remember a change."""
        self._seen.set()

    def take(self) -> bool:
        """Whether there was one; forgets it."""
        seen = self._seen.is_set()
        self._seen.clear()
        return seen


@contextmanager
def watched(folder: str) -> Iterator[Changes]:
    """Watch the folder of the actions package (or its file) in a thread."""
    try:
        from watchfiles import PythonFilter, watch
    except ImportError as error:
        raise ConfigurationError(
            "--reload needs watchfiles: install callboard[embedded]."
        ) from error
    changes, stop = Changes(), threading.Event()

    def look() -> None:
        for _ in watch(folder, watch_filter=PythonFilter(), stop_event=stop):
            changes.note()

    thread = supervise("reload", look, stop)
    try:
        yield changes
    finally:
        stop.set()
        thread.join(timeout=1)


class Reloader:
    """Puts new processes beside the old ones, then lets the old ones finish and go."""

    def __init__(
        self,
        supervisor: Supervisor,
        application: Application,
        *,
        web: Process,
        worker: Process,
        beat: Process,
        tell: Callable[[str], None],
    ) -> None:
        self._supervisor = supervisor
        self._application = application
        self._web: Process | None = web  # None: it ended, and waits for code that imports
        self._worker = worker
        self._beat = beat
        self._tell = tell

    def reload(self) -> None:
        """Take the new code. Where it does not start, say why and keep the old running."""
        try:
            declared = preflight(self._application.environment)
            worker = self._start_worker(declared.queues)
        except (ConfigurationError, _NotReplaced) as error:
            self._tell(f"Not reloaded, the old code runs on: {error}")
            return
        self._supervisor.replace(self._worker, worker)
        self._worker = worker
        beat = self._supervisor.start(self._application.beat())
        self._supervisor.replace(self._beat, beat)
        self._beat = beat
        if self._web is None:
            self._web = self._supervisor.start(self._application.web())
        else:
            self._web.send(signal.SIGHUP)  # gunicorn replaces its workers
        self._tell("Reloaded: the actions changed.")

    def survive(self, failure: ProcessFailed) -> None:
        """Go on without the API where a change came while its new workers were importing.

        Raises ``failure`` where that is not why the process ended.
        """
        try:
            preflight(self._application.environment)
        except ConfigurationError as error:
            if failure.process is not self._web:
                raise failure from None
            self._supervisor.remove(self._web)
            self._web = None
            self._tell(f"The API has ended; it starts again with code that imports: {error}")
        else:
            raise failure

    def _start_worker(self, queues: tuple[str, ...]) -> Process:
        worker = self._supervisor.start(self._application.worker(queues))
        try:
            self._supervisor.wait_ready([worker], READY_TIMEOUT)
        except ProcessFailed as failure:
            if failure.process is not worker:
                raise
            self._supervisor.remove(worker)
            raise _NotReplaced(str(failure)) from failure
        return worker


class _NotReplaced(Exception):
    """The new worker did not start."""
