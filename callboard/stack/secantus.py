"""The embedded MongoDB: SecantusDB, a server of its own that speaks MongoDB's wire protocol."""

from __future__ import annotations

import importlib.util
import json
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from callboard.errors import ConfigurationError
from callboard.stack.folder import DataFolder
from callboard.stack.ports import free_port
from callboard.stack.process import Program
from callboard.stack.ready import database_writes
from callboard.stack.servers import StartingServer
from callboard.stack.supervisor import Supervisor

__all__ = ["MongodbServer", "start_mongodb"]

USER = "callboard"
DATABASE = "callboard"
# SecantusDB looks through the last 10,000 retryable writes at each one, which then takes six times
# as long; and it forgets them when it dies, so they would protect from nothing else.
OPTIONS = "directConnection=true&retryWrites=false"
_PROGRAM = Path(__file__).with_name("secantusd.py")
_USER_CREATED = "mongodb/data/callboard-user-created"  # beside the data that hold the user


@dataclass(frozen=True, slots=True, kw_only=True)
class MongodbServer:
    """A running SecantusDB on 127.0.0.1: a replica set of one node."""

    port: int
    password: str | None = field(repr=False)  # None: it asks for none

    @property
    def uri(self) -> str:
        """Its MONGODB_URI."""
        return self.database_uri(DATABASE)

    def database_uri(self, database: str) -> str:
        """A MONGODB_URI that names another database."""
        address = f"127.0.0.1:{self.port}/{database}?{OPTIONS}"
        if self.password is None:
            return f"mongodb://{address}"
        return f"mongodb://{USER}:{self.password}@{address}&authSource=admin"


def start_mongodb(
    supervisor: Supervisor, folder: DataFolder, password: str
) -> StartingServer[MongodbServer]:
    """Start it on a free port. Its data outlives a restart.

    Raises `ConfigurationError` where it is not installed; on the first start, which takes longer
    because it makes the user, `ProcessFailed` where it does not start.
    """
    if importlib.util.find_spec("secantus") is None:
        raise ConfigurationError(
            "The embedded MongoDB is not installed. Install callboard[embedded] (there is none for "
            "every machine), or set MONGODB_URI to a MongoDB replica set of yours."
        )
    if not (folder.path / _USER_CREATED).exists():
        _create_user(supervisor, folder, password)
    return _start(supervisor, folder, password)


def _create_user(outer: Supervisor, folder: DataFolder, password: str) -> None:
    """Make the first user, on a server that asks for no password yet and is gone afterwards.

    It must have ended before the next one starts: the data folder has one holder at a time.
    """
    import pymongo
    from pymongo.errors import OperationFailure

    outer.announce("First start: making the database's user ...")
    with Supervisor(announce=outer.announce) as supervisor:
        server = _start(supervisor, folder, None).wait()
        with pymongo.MongoClient[dict[str, Any]](server.uri) as client:
            user = {"pwd": password, "roles": ["root"]}
            try:
                client.admin.command({"createUser": USER, **user})
            except OperationFailure:  # it exists: an earlier start was cut off here
                client.admin.command({"updateUser": USER, **user})
    folder.write(_USER_CREATED, "")


def _start(
    supervisor: Supervisor, folder: DataFolder, password: str | None
) -> StartingServer[MongodbServer]:
    def attempt() -> tuple[Program, MongodbServer]:
        server = MongodbServer(port=free_port(), password=password)
        return _program(folder, server), server

    return StartingServer(supervisor, attempt)


def _program(folder: DataFolder, server: MongodbServer) -> Program:
    data = folder.subfolder("mongodb/data")
    config = folder.write(
        "mongodb/secantusd.toml",
        f"[server]\n"
        f'host = "127.0.0.1"\n'
        f"port = {server.port}\n"
        f"storage_path = {json.dumps(str(data))}\n"  # a JSON string is a TOML string
        f'log_level = "WARNING"\n'
        f"[storage]\n"
        f'cache_size = "256M"\n'
        # without it a kill takes transactions back that were committed with `j: true`
        f"sync_on_commit = true\n",
    )
    access = [] if server.password is None else ["--auth"]
    return Program(
        name="MongoDB",
        command=[sys.executable, "-P", str(_PROGRAM), "--config", str(config), *access],
        orphaned=signal.SIGTERM,  # so that it closes its files
        log=folder.log("mongodb"),
        ready=lambda: database_writes(server.uri),
        hint=(
            f"If its data is damaged, move {data.parent} away (the records in it are lost) "
            f"and start again."
        ),
        nudge=lambda: _connect(server.port),
    )


def _connect(port: int) -> None:
    """Wake the server up: asked to stop, it looks only after the next connection, or 2 s."""
    with suppress(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=0.1).close()
