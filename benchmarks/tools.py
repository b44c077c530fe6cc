"""The tools against bare PyMongo: `create` with an id, and `get`.

Both sides share one client and one server (MONGODB_URI, or an embedded server started here)
and one process. Rounds alternate, so that what the machine does meanwhile hits both; the
table shows each side's median round and the median of the rounds' own ratios. The bare side
does what the tool's contract needs of the database and no more: one durable upsert, one read.

    python -m benchmarks.tools [--rounds 20] [--calls 200]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from pymongo.database import Database

from callboard.connections.mongodb import connect
from callboard.sdk.results import ok
from callboard.stack.folder import DataFolder
from callboard.stack.secantus import start_mongodb
from callboard.stack.supervisor import Supervisor
from worker.tools.tools import Tools

DATA = {"title": "Launch", "attendeeIds": [f"user_{n}" for n in range(20)], "open": True, "n": 5}
RUN_SECONDS = 3600.0

Call = Callable[[str], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--calls", type=int, default=200, help="per side and round")
    options = parser.parse_args()
    with server() as uri, connect(uri) as client:
        database = client[f"bench_{uuid4().hex}"]
        try:
            print(f"{options.rounds} rounds of {options.calls} calls; calls/s, median round")
            print(f"{'':14}{'PyMongo':>10}{'tools':>10}{'ratio':>8}")
            for name, bare, tool in pairs(database):
                report(name, compare(bare, tool, options.rounds, options.calls))
        finally:
            client.drop_database(database.name)


def pairs(database: Database) -> Iterator[tuple[str, Call, Call]]:
    """Each measured operation: its name, the bare call and the tool's."""
    tools = Tools(
        database=lambda: database,
        run_id="bench",
        user_id="alice",
        integration=lambda *_: ok(),
        deadline=time.monotonic() + RUN_SECONDS,
    )
    items = database.items

    def upsert(record_id: str) -> None:
        moment = datetime.now(UTC)
        fields = {f"data.{key}": value for key, value in DATA.items()}
        created = {"createdBy": "alice", "createdAt": moment}
        change = {"$set": {**fields, "updatedAt": moment}, "$setOnInsert": created}
        items.update_one({"_id": record_id}, change, upsert=True)

    yield "create (new)", upsert, lambda record_id: tools.create("items", DATA, record_id)
    yield (
        "create (merge)",
        lambda _: upsert("bare"),
        lambda _: tools.create("items", DATA, "tool"),
    )
    yield "get", lambda _: items.find_one({"_id": "bare"}), lambda _: tools.get("items", "tool")


def compare(bare: Call, tool: Call, rounds: int, calls: int) -> list[tuple[float, float]]:
    """Calls per second of each side, by round; the side that begins alternates."""
    rates = []
    for number in range(-1, rounds):  # round -1 warms up
        sides = (bare, tool) if number % 2 else (tool, bare)
        measured = {side: rate(side, calls) for side in sides}
        if number >= 0:
            rates.append((measured[bare], measured[tool]))
    return rates


def rate(call: Call, calls: int) -> float:
    record_ids = [uuid4().hex for _ in range(calls)]
    started = time.perf_counter()
    for record_id in record_ids:
        call(record_id)
    return calls / (time.perf_counter() - started)


def report(name: str, rates: list[tuple[float, float]]) -> None:
    bare, tool = (statistics.median(side) for side in zip(*rates, strict=True))
    ratio = statistics.median(tool / bare for bare, tool in rates)
    print(f"{name:14}{bare:>10.0f}{tool:>10.0f}{ratio:>8.2f}")


@contextmanager
def server() -> Iterator[str]:
    """The URI of the server to measure on."""
    if uri := os.environ.get("MONGODB_URI"):
        yield uri
        return
    with tempfile.TemporaryDirectory() as path, Supervisor() as supervisor:
        folder = DataFolder(Path(path))
        folder.create()
        yield start_mongodb(supervisor, folder, uuid4().hex).wait().uri


if __name__ == "__main__":
    main()
