"""`callboard up --reload`: a change of the actions package gets new processes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from callboard.errors import ConfigurationError
from callboard.preflight import preflight
from callboard.stack.process import Process
from callboard.stack.programs import Application
from callboard.stack.supervisor import ProcessFailed, Supervisor

__all__ = ["Changes", "Reloader"]

READY_TIMEOUT = 30.0  # seconds for the new worker
LOOK_SECONDS = 0.25  # between two looks at the files

Files = Mapping[str, tuple[int, ...] | None]


class Changes:
    """Whether a Python file of the actions, or one that they import, changed since it was taken.

    The files are looked at by their paths, again and again: an event would not tell of what is
    inside a folder that is moved in, of a link that leads elsewhere now, or of a mounted folder.
    """

    def __init__(
        self,
        folder: str,
        clock: Callable[[], float] = time.monotonic,
        imported: Iterable[str] = (),
    ) -> None:
        self._folder = folder
        self._imported = frozenset(imported)
        self._clock = clock
        self._taken = self._seen = self._files()
        self._next = clock()

    def follow(self, imported: Iterable[str]) -> None:
        """Look at these files, too: the new code imports them."""
        new = frozenset(imported) - self._imported
        self._imported |= new
        self._taken = {**{path: _state(path) for path in new}, **self._taken}

    def _files(self) -> Files:
        return {**_files(self._folder), **{path: _state(path) for path in self._imported}}

    def take(self) -> bool:
        """Whether there was a change, and no more since the last look; forgets it."""
        started = self._clock()
        if started < self._next:
            return False
        current = self._files()
        settled, self._seen = current == self._seen, current
        # many files take longer, and are looked at less often
        now = self._clock()
        self._next = now + max(LOOK_SECONDS, 20 * (now - started))
        if not settled or current == self._taken:
            return False
        self._taken = current
        return True

    def forget(self) -> None:
        """Have the next `take` say that there was one."""
        self._taken = {}

    @property
    def pending(self) -> bool:
        """Whether there is a change that was not taken."""
        return self._files() != self._taken


def _files(folder: str) -> Files:
    """Every Python file that may be imported -> what changes with it; None where it is gone."""
    return {path: _state(path) for path in _paths(folder)}


def _paths(folder: str) -> Iterator[str]:
    """A plain module is a file. Links are followed, each folder once."""
    if not os.path.isdir(folder):
        yield folder
        return
    seen: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        is_new = real not in seen
        seen.add(real)
        folders[:] = [name for name in folders if is_new and _may_hold_code(name)]
        yield from (f"{parent}/{name}" for name in files if is_new and name.endswith(".py"))


def _may_hold_code(name: str) -> bool:
    return name != "__pycache__" and not name.startswith(".")


def _state(path: str) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)
    except OSError:  # it went meanwhile, or is a link to nothing
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev)


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
        changes: Changes,
        announce: Callable[[str], None],
    ) -> None:
        self._supervisor = supervisor
        self._application = application
        # None: it ended, and waits for code that imports
        self._processes: dict[str, Process | None] = {"web": web, "worker": worker, "beat": beat}
        self._changes = changes
        self._announce = announce

    def look(self) -> None:
        """Reload where something changed."""
        if self._changes.take():
            self.reload()

    def reload(self) -> None:
        """Take the new code. Where it does not start, say why and keep the old running."""
        try:
            declared = preflight(self._application.environment, self._outdated)
            self._changes.follow(declared.imported)
            worker = self._start_worker(declared.queues)
        except (ConfigurationError, _NotReplaced) as error:
            self._announce(f"Not reloaded, the old code runs on: {error}")
            return
        self._put("worker", worker)
        self._put("beat", self._supervisor.start(self._application.beat()))
        web = self._processes["web"]
        if web is None:
            self._processes["web"] = self._supervisor.start(self._application.web())
        else:
            web.send(signal.SIGHUP)  # gunicorn replaces its workers
        self._announce("Reloaded: the actions changed.")

    def _outdated(self) -> str | None:
        """Why a check that goes on is of no use."""
        if self._supervisor.stop_requests:
            return "it is to stop"
        return "they changed again, while they were imported" if self._changes.pending else None

    def _put(self, name: str, new: Process) -> None:
        """Let a new process stand for the old one."""
        old, self._processes[name] = self._processes[name], new
        if old is not None:
            self._supervisor.replace(old, new)

    def survive(self, failure: ProcessFailed) -> None:
        """Go on without a process that ended because a change came while it was importing.

        Raises ``failure`` where that is not why it ended.
        """
        names = [name for name, one in self._processes.items() if one is failure.process]
        changed = self._changes.pending
        why = "its actions changed meanwhile" if changed else self._broken()
        if not names or why is None:
            raise failure
        self._supervisor.remove(failure.process)
        self._processes[names[0]] = None
        self._changes.forget()
        self._announce(
            f"The process {names[0]} has ended; it starts again with code that imports: {why}"
        )

    def _broken(self) -> str | None:
        """Why the code does not import; None where it does."""
        try:
            preflight(self._application.environment, self._outdated)
        except ConfigurationError as error:
            return str(error)
        return None

    def _start_worker(self, queues: tuple[str, ...]) -> Process:
        worker = self._supervisor.start(self._application.worker(queues))
        try:
            self._supervisor.wait_ready([worker], READY_TIMEOUT)
        except ProcessFailed as failure:
            self._supervisor.remove(worker)
            if failure.process is not worker:
                raise
            raise _NotReplaced(str(failure)) from failure
        return worker


class _NotReplaced(Exception):
    """The new worker did not start."""
