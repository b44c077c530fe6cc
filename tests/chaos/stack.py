"""The processes under test: a broker, a database, an API and two workers, kept running.

They are those of `callboard up`, with a second worker; beat and Flower only where a test asks for
them. Whatever is killed is started again at
once; what ends by itself is started again, too, and told as a problem.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import redis
from pymongo.database import Database

from callboard.connections import mongodb
from callboard.preflight import preflight
from callboard.stack.environment import development_environment
from callboard.stack.folder import DataFolder
from callboard.stack.ports import free_port
from callboard.stack.process import Process, Program
from callboard.stack.programs import Application
from callboard.stack.secantus import start_mongodb
from callboard.stack.secrets import keep_secrets
from callboard.stack.supervisor import Supervisor
from callboard.stack.valkey import start_valkey
from chaos.intervals import FOLDER_VARIABLE, loop_pids

__all__ = [
    "API", "BEAT", "BROKER", "DATABASE", "FLOWER", "STOP_GRACE", "WORKERS", "Away", "Stack",
    "children", "running_stack",
]  # fmt: skip

API, BROKER, DATABASE = "API", "Valkey", "MongoDB"
BEAT, FLOWER = "beat", "Flower"
WORKERS = ("worker-1", "worker-2")
CHILDREN = 2  # of each worker, unless it is told otherwise
STOP_GRACE = 3.0  # seconds that a worker has for the runs in hand: less than a long run needs
START_SECONDS = 120.0
EXIT_SECONDS = 15.0  # after its grace, in which a process that was asked to stop must have ended

TESTS = Path(__file__).parents[1]


@dataclass
class Member:
    """One process of the stack, whichever instance of it runs now."""

    make: Callable[[], Program]
    process: Process
    since: float = 0.0  # time.monotonic seconds: when it was last stopped
    ready_at: float | None = None  # time.monotonic seconds: when it was first seen to be ready


class Away(NamedTuple):
    """A time in which a server was killed and not yet ready again; `time.monotonic` seconds."""

    name: str
    gone: float
    back: float


class Servers(Supervisor):
    """A supervisor that tells which programs the embedded servers are."""

    def __init__(self) -> None:
        super().__init__(grace=STOP_GRACE + 2.0)
        self.started: dict[str, Process] = {}

    def start(self, program: Program, *, server: bool = False) -> Process:
        """Start a program."""
        process = super().start(program, server=server)
        self.started[program.name] = process
        return process


class Stack:
    """The processes by name, and the way to what they serve."""

    def __init__(
        self,
        supervisor: Servers,
        folder: DataFolder,
        environment: Mapping[str, str],
        children_each: int,
    ) -> None:
        self.environment = environment
        self.log_folder = folder.path / "log"
        self.intervals = Path(environment[FOLDER_VARIABLE])
        self.problems: list[str] = []
        self.away: list[Away] = []
        self._exit_seconds = float(environment["CALLBOARD_STOP_GRACE"]) + EXIT_SECONDS
        self._supervisor = supervisor
        self._starts = 0
        self._leaving: dict[Process, float] = {}  # asked to stop -> when it must have ended
        self._application = Application(
            folder=folder, host="127.0.0.1", port=free_port(), flower_port=free_port(),
            workers=children_each, environment=environment,
        )  # fmt: skip
        queues = preflight({**os.environ, **environment}).queues
        self._members = {
            name: Member(make=lambda program=process.program: program, process=process)
            for name, process in supervisor.started.items()
        }
        self._add(API, self._application.web)
        for name in WORKERS:
            self._add(name, lambda: self._application.worker(queues))

    def add_beat_and_flower(self) -> None:
        """Start these two as well."""
        self._add(BEAT, self._application.beat)
        self._add(FLOWER, self._application.flower)

    @property
    def leaving(self) -> int:
        """How many were asked to stop and have not ended."""
        return sum(process.running for process in self._leaving)

    @property
    def url(self) -> str:
        """Of the API."""
        return self._application.url

    @contextmanager
    def redis(self) -> Iterator[redis.Redis]:
        """A client of the broker."""
        with redis.Redis.from_url(self.environment["REDIS_URL"], socket_timeout=30) as client:
            yield client

    @contextmanager
    def database(self) -> Iterator[Database[dict[str, Any]]]:
        """The application's database."""
        with mongodb.connect(self.environment["MONGODB_URI"]) as client:
            yield client.get_default_database()

    def pid(self, name: str) -> int:
        """The process id of a member."""
        return self._members[name].process.pid

    def loops(self, name: str) -> list[int]:
        """The process ids of a worker's loop processes that have had a run."""
        return sorted({*children(self.pid(name))} & loop_pids(self.intervals))

    def ready(self, name: str) -> bool:
        """Whether a member has been ready since its last start."""
        member = self._members[name]
        if member.ready_at is None and member.process.program.ready():
            member.ready_at = time.monotonic()
            if name not in WORKERS:
                self.away.append(Away(name, member.since, member.ready_at))
        return member.ready_at is not None and member.process.running

    def wait_ready(self) -> None:
        """Return when every member is ready; raises TimeoutError."""
        deadline = time.monotonic() + START_SECONDS
        while waiting := [name for name in self._members if not self.ready(name)]:
            if time.monotonic() > deadline:
                raise TimeoutError(f"not ready: {', '.join(waiting)}; see {self.log_folder}")
            self.look_after()

    def kill(self, name: str) -> None:
        """Kill -9 a member alone, see that its children die with it, start it again."""
        member = self._members[name]
        orphans = children(member.process.pid)
        member.since = time.monotonic()
        member.process.send(signal.SIGKILL)
        self._wait_ended(member.process)
        if name in WORKERS and not _gone(orphans):
            self.problems.append(f"children of {name} outlived it: {orphans}")
        self._replace(name)

    def kill_all(self, name: str) -> None:
        """Kill -9 a member with all its children, start it again."""
        self._members[name].since = time.monotonic()
        self._replace(name)

    def restart(self, name: str) -> None:
        """SIGTERM a member, start it again when it has ended."""
        member = self._members[name]
        member.since = time.monotonic()
        member.process.send(signal.SIGTERM)
        self._wait_ended(member.process)
        self._replace(name)

    def roll(self, name: str) -> None:
        """SIGTERM a member and start the next one at once; the old one ends its work beside."""
        self._see_off(self._members[name].process)
        self._start(name)

    def relieve(self, name: str) -> None:
        """Start the next one, and SIGTERM the old one once the next is ready."""
        old = self._members[name].process
        self._start(name)
        self.wait_ready()
        self._see_off(old)

    def reload(self, name: str) -> None:
        """SIGHUP a member; return when it has new children only (gunicorn's graceful reload)."""
        old = set(children(self.pid(name)))
        self._members[name].process.send(signal.SIGHUP)
        deadline = time.monotonic() + self._exit_seconds
        while not (now := set(children(self.pid(name)))) or old & now:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{name} still has old children; see {self.log_folder}")
            self.look_after()

    def _see_off(self, process: Process) -> None:
        process.send(signal.SIGTERM)
        self._leaving[process] = time.monotonic() + self._exit_seconds

    @contextmanager
    def without(self, name: str) -> Iterator[None]:
        """A member is killed and away inside the block; it starts again after it."""
        self._supervisor.remove(self._members[name].process)
        try:
            yield
        finally:
            self._start(name)

    def look_after(self) -> None:
        """See off who was asked to stop; start again who ended by itself; see who is ready."""
        for process, deadline in list(self._leaving.items()):
            late = process.running and time.monotonic() > deadline
            if late:
                self.problems.append(f"{process.name} did not stop; see {process.program.log}")
            if late or not process.running:
                del self._leaving[process]
                self._supervisor.remove(process)
        for name, member in self._members.items():
            if not member.process.running:
                log = member.process.program.log
                self.problems.append(f"{name} {member.process.ending} by itself; see {log}")
                member.since = time.monotonic()
                self._replace(name)
            elif member.ready_at is None:
                self.ready(name)
        time.sleep(0.02)

    def _add(self, name: str, make: Callable[[], Program]) -> None:
        self._members[name] = Member(make=make, process=self._launch(name, make()))

    def _launch(self, name: str, program: Program) -> Process:
        """Each start has a log of its own."""
        self._starts += 1
        log = self.log_folder / f"{name.lower()}-{self._starts}.log"
        server = name in (BROKER, DATABASE)
        return self._supervisor.start(replace(program, name=name, log=log), server=server)

    def _replace(self, name: str) -> None:
        self._supervisor.remove(self._members[name].process)
        self._start(name)

    def _start(self, name: str) -> None:
        member = self._members[name]
        member.process, member.ready_at = self._launch(name, member.make()), None

    def _wait_ended(self, process: Process) -> None:
        deadline = time.monotonic() + self._exit_seconds
        while process.running:
            process.program.nudge()
            if time.monotonic() > deadline:
                self.problems.append(f"{process.name} did not stop; see {process.program.log}")
                return
            time.sleep(0.01)


@contextmanager
def running_stack(
    folder: Path,
    *,
    fsync: str,
    children_each: int = CHILDREN,
    address: Callable[[str], str] = str,
    **variables: str,
) -> Iterator[Stack]:
    """All of it, ready; ended with the block.

    ``fsync``: Valkey's ``appendfsync``. ``children_each``: the children of each worker.
    ``address``: turns Valkey's URL into the one that the others get.
    """
    data = DataFolder(folder)
    data.create()
    secrets = keep_secrets(data)
    with Servers() as supervisor:
        broker = start_valkey(supervisor, data, secrets.redis_password).wait()
        database = start_mongodb(supervisor, data, secrets.mongodb_password).wait()
        with redis.Redis.from_url(broker.url) as client:
            client.config_set("appendfsync", fsync)
            client.config_rewrite()
        environment = {
            **development_environment({}, secrets),
            "REDIS_URL": address(broker.url),
            "MONGODB_URI": database.uri,
            "CALLBOARD_ACTIONS": "chaos.app",
            "CALLBOARD_STOP_GRACE": f"{STOP_GRACE:g}",
            "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]),
            FOLDER_VARIABLE: str(data.subfolder("intervals")),
            **variables,
        }
        stack = Stack(supervisor, data, environment, children_each)
        stack.wait_ready()
        yield stack


def children(pid: int) -> list[int]:
    """The direct children of a process (Linux)."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += map(int, task.read_text().split())
        except (FileNotFoundError, ProcessLookupError):  # the thread ended just now
            continue
    return sorted(found)


def _gone(pids: list[int]) -> bool:
    """Whether these processes end soon, long before a run of theirs would."""
    deadline = time.monotonic() + 4.0
    while any(_runs(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"
