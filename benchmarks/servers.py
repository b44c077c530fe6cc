"""The servers that every stack shares: Valkey, fresh for each turn, and one MongoDB."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pymongo import MongoClient

from benchmarks.jobs import COLLECTION
from callboard.errors import CallboardError
from callboard.stack.folder import DataFolder
from callboard.stack.process import Process, Program
from callboard.stack.secantus import MongodbServer, start_mongodb
from callboard.stack.secrets import keep_secrets
from callboard.stack.supervisor import Supervisor
from callboard.stack.valkey import start_valkey

__all__ = ["Database", "Watched", "running_database", "start_redis"]


class Watched(Supervisor):
    """A supervisor that tells which processes run, the embedded servers among them."""

    def __init__(self) -> None:
        super().__init__()
        self.running: list[Process] = []

    def start(self, program: Program, *, server: bool = False) -> Process:
        """Start a program."""
        process = super().start(program, server=server)
        self.running.append(process)
        return process

    def remove(self, process: Process) -> None:
        """End one process at once."""
        super().remove(process)
        self.running.remove(process)


class Database:
    """The embedded MongoDB; each turn has a database of its own in it."""

    def __init__(self, server: MongodbServer, processes: Sequence[Process]) -> None:
        self._server = server
        self.processes = tuple(processes)  # whose CPU time counts

    @contextmanager
    def fresh(self, name: str, *, upserts: bool = True) -> Iterator[str]:
        """A MONGODB_URI that names an empty database.

        Raises `CallboardError` at the end where no job has left a record in it, unless none was
        to: then the calls that were answered were no ``upserts``.
        """
        uri = self._server.database_uri(name)
        with MongoClient[dict[str, Any]](uri) as client:
            client.drop_database(name)
            yield uri
            if upserts and not client[name][COLLECTION].estimated_document_count():
                raise CallboardError(f"{name}: upserts were answered, but none was made.")
            client.drop_database(name)


@contextmanager
def running_database() -> Iterator[Database]:
    """Start the embedded MongoDB, for all turns."""
    with tempfile.TemporaryDirectory(prefix="bench-") as path, Watched() as supervisor:
        folder = DataFolder(Path(path))
        folder.create()
        server = start_mongodb(supervisor, folder, keep_secrets(folder).mongodb_password).wait()
        yield Database(server, supervisor.running)


def start_redis(supervisor: Supervisor, folder: DataFolder) -> str:
    """Start an embedded Valkey with an empty data folder; its REDIS_URL."""
    return start_valkey(supervisor, folder, keep_secrets(folder).redis_password).wait().url
