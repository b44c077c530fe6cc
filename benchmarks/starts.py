"""Runs that start runs: how many a second, how soon their handlers begin, and how soon a join.

    python -m benchmarks.starts [--rounds 3] [--only callboard celery]

A handler starts no-ops one by one, many at once, and many with something that waits for them all:
`ctx.start` and `ctx.start_all` beside Celery's `apply_async`, `group` and `chord`, and taskiq's
`kiq`. Stacks take turns; each has fresh servers and processes, and each round begins with another.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from http.client import HTTPException
from typing import Any, NamedTuple

from benchmarks.comparison import Row, comparison
from benchmarks.goals import Goal
from benchmarks.machine import Machine
from benchmarks.rounds import in_turn
from benchmarks.servers import Database, running_database
from benchmarks.sites import running_site, wait_until
from benchmarks.stacks import Site, Stack
from benchmarks.stacks.starting import CELERY, OURS, STACKS
from callboard.errors import CallboardError

TIMEOUT = 150.0  # seconds of a measurement


class Measure(NamedTuple):
    """What a parent is asked for."""

    key: str
    job: str
    params: Mapping[str, Any]
    times: int = 1  # in a turn


MEASURES = (
    Measure("each", "startEach", {"count": 1_000}),
    Measure("many", "startMany", {"count": 1_000, "served": False}, 3),
    Measure("latency", "latency", {"count": 300}),
    Measure("committed", "latencyCommitted", {"count": 300}),
    Measure("join", "join", {"count": 1_000}, 3),
    Measure("accepted", "startMany", {"count": 10_000, "served": True}),
)

Found = Mapping[tuple[str, str], list[float]]
"""Of a stack and a measure, all seconds that were found."""


def main() -> None:
    """Measure, print."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # stop what was started
    parser = argparse.ArgumentParser(prog="benchmarks.starts", description=__doc__.splitlines()[0])
    keys = [stack.key for stack in STACKS]
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=keys, default=keys, metavar="NAME")
    options = parser.parse_args()
    machine = Machine.this()
    stacks = [stack for stack in STACKS if stack.key in options.only]
    try:
        found = _measured(stacks, options.rounds)
    except (CallboardError, ValueError) as error:
        sys.exit(str(error))
    print("\n".join(["", f"{machine}", f"{options.rounds} round(s)", *_report(stacks, found)]))


def _measured(stacks: Sequence[Stack], rounds: int) -> Found:
    found: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    with running_database() as database:
        for _, stack in in_turn(stacks, rounds):
            for key, seconds in _turn(stack, database):
                found[stack.key, key] += seconds
                print(f", {key} {statistics.median(seconds):.4f} s", end="", flush=True)
    return found


def _turn(stack: Stack, database: Database) -> Iterator[tuple[str, list[float]]]:
    """The seconds of each measurement of one stack."""
    with running_site(stack.key, stack.programs, database) as (site, supervisor):
        wait_until(lambda: _answers(stack, site), stack.name, supervisor)
        stack.ask(site, "latency", {"count": 100}, TIMEOUT)  # warm-up
        for measure in MEASURES:
            if measure.job in stack.jobs:
                answers = [
                    stack.ask(site, measure.job, measure.params, TIMEOUT)
                    for _ in range(measure.times)
                ]
                yield measure.key, answers[0] if isinstance(answers[0], list) else answers


def _answers(stack: Stack, site: Site) -> bool:
    try:
        return bool(stack.ask(site, "latency", {"count": 1}, 10.0))
    except (OSError, HTTPException, ValueError):
        return False


def _report(stacks: Sequence[Stack], found: Found) -> Iterator[str]:
    names = {stack.key: stack.name for stack in stacks}
    rows = [*_rows(names, found)]
    yield ""
    yield from comparison(list(names.values()), rows)
    yield ""
    yield "Goals"
    yield from map(str, _goals({row.title: row for row in rows}))
    yield ""
    yield "Settings (caveats: docs/benchmark.md)"
    yield from (f"  {stack.name}: {stack.settings}" for stack in stacks)


def _rows(names: Mapping[str, str], found: Found) -> Iterator[Row]:
    def row(title: str, key: str, value: Any, *, more_is_better: bool = False) -> Row:
        values = {name: value(found[stack, key]) for stack, name in names.items()
                  if (stack, key) in found}  # fmt: skip
        return Row(title=title, more_is_better=more_is_better, values=values)

    def rate(seconds: list[float]) -> float:
        return 1_000 / statistics.median(seconds)

    yield row("one by one, starts/s", "each", rate, more_is_better=True)
    yield row(AT_ONCE, "many", rate, more_is_better=True)
    yield row(TO_HANDLER, "latency", lambda found: 1000 * statistics.median(found))
    yield row("start to handler p99, ms", "latency", lambda found: 1000 * _p99(found))
    yield row(COMMIT_TO_HANDLER, "committed", lambda found: 1000 * statistics.median(found))
    yield row("commit to handler p99, ms", "committed", lambda found: 1000 * _p99(found))
    yield row(TO_JOIN, "join", statistics.median)
    yield row(ACCEPTED, "accepted", statistics.median)


AT_ONCE = "1,000 at once, starts/s"
TO_HANDLER, COMMIT_TO_HANDLER = "start to handler p50, ms", "commit to handler p50, ms"
TO_JOIN, ACCEPTED = "1,000 no-ops to their join, s", "10,000 at once, s"


def _p99(found: Sequence[float]) -> float:
    return statistics.quantiles(found, n=100)[-1]


def _goals(rows: Mapping[str, Row]) -> Iterator[Goal]:
    for title, text, target in (
        (AT_ONCE, "start_all, starts a second against Celery's group", 5.0),
        (TO_JOIN, "1,000 no-ops to their join, times as fast as Celery's chord", 3.0),
    ):
        if (ratio := rows[title].ratio(OURS.name, CELERY.name)) is not None:
            yield Goal(text=text, value=ratio, target=target, at_least=True)
    for title, text, target in (
        (TO_HANDLER, "from a start to the child's handler, p50, milliseconds", 5.0),
        (COMMIT_TO_HANDLER, "from a commit to the child's handler, p50, milliseconds", 5.0),
        (ACCEPTED, "10,000 runs of one start_all accepted, seconds", 2.0),
    ):
        if (value := rows[title].values.get(OURS.name)) is not None:
            yield Goal(text=text, value=value, target=target, at_least=False)


if __name__ == "__main__":
    main()
