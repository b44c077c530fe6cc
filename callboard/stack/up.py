"""`callboard up`: the whole stack on this machine, from nothing to a printed call."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path

from callboard.errors import ConfigurationError
from callboard.preflight import Declared, preflight
from callboard.processes.orphans import orphans_ended
from callboard.settings import Settings
from callboard.stack.banner import banner
from callboard.stack.environment import development_environment
from callboard.stack.folder import DataFolder
from callboard.stack.given import GivenServer, given_mongodb, given_redis
from callboard.stack.ports import api_url, require_free
from callboard.stack.programs import Application
from callboard.stack.ready import no_transaction
from callboard.stack.reload import Changes, Reloader
from callboard.stack.running import announced
from callboard.stack.secantus import start_mongodb
from callboard.stack.secrets import keep_secrets
from callboard.stack.supervisor import ProcessFailed, StopRequested, Supervisor, stop_signals
from callboard.stack.valkey import start_valkey

__all__ = ["UpOptions", "up"]

DEFAULT_ACTIONS: str = Settings.model_fields["actions"].default
READY_TIMEOUT = 60.0  # seconds: a cold disk and a slow machine
DATABASE_TIMEOUT = 5.0  # seconds to find a database that is somewhere else
_NOT_STARTED = {"REDIS_URL": "redis://127.0.0.1/0", "MONGODB_URI": "mongodb://127.0.0.1/callboard"}


@dataclass(frozen=True, slots=True, kw_only=True)
class UpOptions:
    """What the user asked for."""

    host: str
    port: int
    flower_port: int
    data_dir: Path
    workers: int
    reload: bool
    show: Callable[[str, str], None] | None  # takes (process, line); None: quiet
    announce: Callable[[str], None]  # takes what is always printed
    from_env_file: tuple[str, ...] = ()  # the variables that .env gave


def up(options: UpOptions) -> None:
    """Start everything, tell how to call it, look after it until Ctrl-C.

    Raises `CallboardError` with one message for what keeps it from starting and for a process
    that died; nothing is left running then.
    """
    _require_actions(os.environ.get("CALLBOARD_ACTIONS") or DEFAULT_ACTIONS)
    folder = DataFolder(options.data_dir)
    folder.create()
    with folder.locked(), orphans_ended(), suppress(StopRequested):
        require_free(options.host, options.port, "--port")
        require_free("127.0.0.1", options.flower_port, "--flower-port")
        environment = development_environment(os.environ, keep_secrets(folder))
        environment.setdefault("CALLBOARD_PUBLIC_URL", api_url(options.host, options.port))
        if options.reload:  # compiled files know seconds only: what is saved twice in one is stale
            environment["PYTHONDONTWRITEBYTECODE"] = "1"
        supervisor = Supervisor(show=options.show, announce=options.announce)
        # in this order: a Ctrl-C while it stops must not cut the stop off
        with stop_signals(supervisor), supervisor:
            given = _given_servers(environment)
            servers = _start_servers(supervisor, folder, environment)
            declared = preflight({**_NOT_STARTED, **environment})  # while the servers start
            for server in given:
                server.wait()
            supervisor.grace = _stop_grace(environment)
            environment |= {name: wait() for name, wait in servers.items()}
            application = Application(
                folder=folder,
                host=options.host,
                port=options.port,
                flower_port=options.flower_port,
                workers=options.workers,
                environment=environment,
            )
            _run(supervisor, application, declared, options, _notes(options, servers))


def _notes(options: UpOptions, started: Container[str]) -> list[str]:
    """Where the settings and the database are from, as lines of the banner."""
    notes = []
    if options.from_env_file:
        notes.append(f".env     sets {', '.join(options.from_env_file)}")
    if "MONGODB_URI" in started:
        notes.append(
            "MongoDB  SecantusDB (GPL-2.0), for development and tests; MONGODB_URI names another"
        )
    return notes


def _stop_grace(environment: Mapping[str, str]) -> float:
    """Seconds between SIGTERM and SIGKILL: a worker needs a moment after its own grace."""
    return float(environment["CALLBOARD_STOP_GRACE"]) + 2.0


def _start_servers(
    supervisor: Supervisor, folder: DataFolder, environment: Mapping[str, str]
) -> dict[str, Callable[[], str]]:
    """Start the servers that the user has not named; variable -> waits, then says its value."""
    secrets = keep_secrets(folder)
    servers: dict[str, Callable[[], str]] = {}
    if "REDIS_URL" not in environment:
        valkey = start_valkey(supervisor, folder, secrets.redis_password)
        servers["REDIS_URL"] = lambda: valkey.wait().url
    if "MONGODB_URI" not in environment:
        mongodb = start_mongodb(supervisor, folder, secrets.mongodb_password)
        servers["MONGODB_URI"] = lambda: mongodb.wait().uri
    return servers


def _given_servers(environment: Mapping[str, str]) -> list[GivenServer]:
    """Those that the user named, which are being asked whether they answer."""
    asked = {"REDIS_URL": given_redis, "MONGODB_URI": given_mongodb}
    return [ask(environment[name]) for name, ask in asked.items() if name in environment]


def _require_actions(module: str) -> None:
    """Raise `ConfigurationError` where there is no actions package at all."""
    package = module.partition(".")[0]
    if PathFinder.find_spec(package, [str(Path.cwd()), *sys.path]) is None:
        raise ConfigurationError(
            f"There is no {package}/ in {Path.cwd()}. `callboard init` writes one with a first "
            f"action; or go to the folder of your application, or name another package in "
            f"CALLBOARD_ACTIONS."
        )


def _run(
    supervisor: Supervisor,
    application: Application,
    declared: Declared,
    options: UpOptions,
    notes: Sequence[str],
) -> None:
    """Start the application's processes, tell that they are ready, look after them."""
    changes = Changes(
        declared.folder, imported=declared.imported
    )  # since the check: also while the processes start
    web = supervisor.start(application.web())
    worker = supervisor.start(application.worker(declared.queues))
    beat = supervisor.start(application.beat())
    flower = supervisor.start(application.flower())
    supervisor.wait_ready([web, worker, beat, flower], READY_TIMEOUT)
    if why := no_transaction(application.environment["MONGODB_URI"], timeout=DATABASE_TIMEOUT):
        options.announce(
            f"\nMongoDB (MONGODB_URI) commits no transaction, so most runs will fail: {why}"
        )
    with announced(application.folder, application.running()):
        options.announce(banner(application, declared, notes))
        if not options.reload:
            supervisor.watch()
        reloader = Reloader(
            supervisor,
            application,
            web=web,
            worker=worker,
            beat=beat,
            changes=changes,
            announce=options.announce,
        )
        while True:
            try:
                supervisor.watch(reloader.look)
            except ProcessFailed as failure:
                reloader.survive(failure)
