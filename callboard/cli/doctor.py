"""`callboard doctor`: asks each part whether it works, one line each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from callboard.cli.development import adopt_running_stack, data_dir_option
from callboard.cli.listing import json_option, print_json
from callboard.errors import CallboardError, ConfigurationError, ServiceUnavailable
from callboard.layout import WORKER
from callboard.preflight import preflight
from callboard.settings import get_settings
from callboard.stack.ready import transaction_commits

if TYPE_CHECKING:
    import redis

    from callboard.applications import Process

__all__ = ["doctor"]

TIMEOUT = 5.0  # seconds for one part


@click.command()
@json_option
@data_dir_option
def doctor(as_json: bool, data_dir: Path) -> None:
    """Check settings, actions, servers, keys, worker, beat and clocks; exit code 1 if one fails."""
    adopt_running_stack(data_dir)
    checks: tuple[tuple[str, Callable[[], str]], ...] = (
        ("settings", _settings),
        ("actions", _actions),
        ("broker", _broker),
        ("keys", _keys),
        ("database", _database),
        ("namespace", _namespace),
        ("worker", _worker),
        ("beat", _beat),
        ("clocks", _clocks),
    )
    found: list[dict[str, object]] = []
    for name, check in checks:
        if found and not found[0]["ok"]:
            break  # without settings there is nothing to ask
        found.append(_checked(name, check))
        if not as_json:
            click.echo(f"{'ok  ' if found[-1]['ok'] else 'FAIL'}  {name:<9} {found[-1]['told']}")
    if as_json:
        print_json(found)
    if not all(row["ok"] for row in found):
        sys.exit(1)


def _checked(name: str, check: Callable[[], str]) -> dict[str, object]:
    """What the check found, or what it failed with."""
    try:
        return {"part": name, "ok": True, "told": check()}
    except CallboardError as error:
        return {"part": name, "ok": False, "told": " ".join(str(error).split())}


def _settings() -> str:
    return f"{get_settings().env}"


def _actions() -> str:
    declared = preflight(os.environ)
    return f"{len(declared.actions)} in {declared.folder}"


def _broker() -> str:
    import redis

    from callboard.connections.redis import evicts

    client = _redis()
    try:
        client.ping()
        policy = evicts(client)
    except (redis.RedisError, OSError) as error:
        raise ServiceUnavailable(f"Redis does not answer: {error!s:.300}") from error
    finally:
        client.connection_pool.disconnect()
    if policy:
        raise ServiceUnavailable(
            f"Redis may throw runs away: it has {policy}, set maxmemory-policy noeviction"
        )
    if policy is None:
        return "answers; its maxmemory-policy cannot be read, see to it that it is noeviction"
    return "answers, throws nothing away"


def _keys() -> str:
    from callboard.connections.spoiled import spoiled

    try:
        queues = preflight(os.environ).message_queues
    except ConfigurationError:  # another line says why
        queues = ()
    client = _redis()
    try:
        wrong = spoiled(client, get_settings().keys, queues)
    finally:
        client.connection_pool.disconnect()
    if wrong:
        raise ServiceUnavailable(
            f"somebody else has written to Redis: {'; '.join(wrong)}. RENAME it away, or restore it"
        )
    return "are of their types"


def _database() -> str:
    from pymongo.errors import PyMongoError

    try:
        seconds = transaction_commits(
            get_settings().mongodb_uri.get_secret_value(), timeout=TIMEOUT
        )
    except PyMongoError as error:
        raise ServiceUnavailable(f"MongoDB commits no transaction: {error!s:.300}") from error
    return f"commits a transaction in {seconds * 1000:.0f} ms"


def _namespace() -> str:
    from callboard import applications

    settings = get_settings()
    me, seen = _me(), applications.processes(_redis(), settings.keys)
    if found := applications.foreign(me, seen):
        raise ServiceUnavailable(applications.conflict(me, found, settings.keys))
    return f"{settings.namespace}, {len(seen)} processes, all of this application"


def _me() -> Process:
    from callboard.applications import Process

    return Process.of(get_settings(), "doctor")


def _ours(kind: str, names: Iterable[str]) -> list[str]:
    """Those of ``names`` that are not another application's alone."""
    from callboard import applications

    me, seen = _me(), applications.processes(_redis(), get_settings().keys)
    theirs = {process.name for process in applications.foreign(me, seen)}
    theirs -= {process.name for process in seen if not me.differs(process)}
    return sorted(name for name in names if f"{kind} {name}" not in theirs)


def _worker() -> str:
    """Ask over the broker, as the real app: it knows how its workers listen."""
    from callboard.connections import heartbeat

    get_settings()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "celery", "-A", WORKER, "inspect", "ping", "--json"],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        names = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError, subprocess.TimeoutExpired) as error:
        seen = heartbeat.seen(_redis(), get_settings().keys.worker)
        hint = f"; seen a moment ago: {', '.join(seen)}" if seen else ""
        raise ServiceUnavailable(f"no worker answers{hint}") from error
    _require_ready("worker", get_settings().keys.worker)
    if not (ours := _ours("worker", names)):
        raise ServiceUnavailable("no worker of this application answers, those of another do")
    return f"{', '.join(ours)} answers"


def _beat() -> str:
    from callboard.connections import heartbeat

    _require_ready("beat", get_settings().keys.beat)
    if not _ours("beat", heartbeat.seen(_redis(), get_settings().keys.beat)):
        raise ServiceUnavailable("no beat is alive: schedules do not fire")
    return "alive"


def _require_ready(kind: str, prefix: str) -> None:
    """Raise for those that live and are not ready: why stands in their log."""
    from callboard.connections import heartbeat

    if found := heartbeat.unready(_redis(), prefix):
        listed = "; ".join(f"{kind} {name} {why}" for name, why in sorted(found.items()))
        raise ServiceUnavailable(f"not ready: {listed}. See its log")


def _clocks() -> str:
    """Compare with the database's, which decides what is due, and with the broker's."""
    from callboard import clock

    found = _deviations()
    off = [f"{whose} is {clock.deviation(s)}" for whose, s in found.items() if clock.deviation(s)]
    if off:
        raise ServiceUnavailable(f"{'; '.join(off)}. Have each machine's clock set by NTP")
    return f"agree within {max(map(abs, found.values())):.1f} s"


def _deviations() -> dict[str, float]:
    """By how many seconds each clock is ahead of the one that it is compared with."""
    from callboard import clock
    from callboard.connections import heartbeat
    from callboard.connections.mongodb import Store

    client, store = _redis(), Store.of(get_settings())
    database = clock.DatabaseClock(store.database)
    try:
        database()
    finally:
        store.close()
    found = {
        "this machine's clock (database)": database.ahead,
        "this machine's clock (broker)": clock.ahead_of_broker(client),
    }
    for kind, prefix, whose in (
        ("worker", get_settings().keys.worker, "broker"),
        ("beat", get_settings().keys.beat, "database"),
    ):
        for name, sign in heartbeat.signs(client, prefix).items():
            if isinstance(sign.get("ahead"), int | float):
                found[f"the clock of {kind} {name} ({whose})"] = sign["ahead"]
    return found


def _redis() -> redis.Redis:
    from callboard.connections.redis import connect

    return connect(get_settings())
