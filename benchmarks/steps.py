"""Handlers that remember their steps: workflows of ten empty steps a second, and what one costs.

    python -m benchmarks.steps [--rounds 3] [--seconds 3] [--only callboard dbos]

`ctx.step` beside DBOS Transact over SQLite. A step is kept before the next one begins. Both are
called over HTTP, by 1 and by 8 callers in a closed loop. Stacks take turns; each has fresh servers
and processes, and each round begins with another.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from benchmarks.comparison import Row, comparison
from benchmarks.generator import generate
from benchmarks.goals import Goal
from benchmarks.jobs import DONE
from benchmarks.load import Load, LoadResult
from benchmarks.machine import Machine
from benchmarks.rounds import in_turn
from benchmarks.servers import Database, Watched, running_database
from benchmarks.sites import running_site, wait_until
from benchmarks.stacks import Site, Stack
from benchmarks.stacks.base import HOST
from benchmarks.stacks.stepping import DBOS, OURS, OURS_ASYNC, STACKS
from callboard.errors import CallboardError

TIMEOUT = 60.0  # seconds of a measurement
CALLERS = (1, 8)
TIMES = 5  # that many steps are measured, in a turn
ONE = "one step, ms"

Found = Mapping[tuple[str, str], list[float]]
"""Of a stack's name and a row's title, what its turns have found."""


def main() -> None:
    """Measure, print."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # stop what was started
    parser = argparse.ArgumentParser(prog="benchmarks.steps", description=__doc__.splitlines()[0])
    keys = [stack.key for stack in STACKS]
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="per measurement")
    parser.add_argument("--only", nargs="+", choices=keys, default=keys, metavar="NAME")
    options = parser.parse_args()
    machine = Machine.this()
    stacks = [stack for stack in STACKS if stack.key in options.only]
    try:
        found = _measured(stacks, options.rounds, options.seconds)
    except (CallboardError, ValueError) as error:
        sys.exit(str(error))
    head = f"{options.rounds} round(s), {options.seconds:g} s per measurement"
    print("\n".join(["", f"{machine}", head, *_report(stacks, found)]))


def _measured(stacks: Sequence[Stack], rounds: int, seconds: float) -> Found:
    found: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    with running_database() as database:
        for _, stack in in_turn(stacks, rounds):
            for title, value in _turn(stack, database, seconds):
                found[stack.name, title].append(value)
                print(f", {value:.4g}", end="", flush=True)
    return found


def _turn(stack: Stack, database: Database, seconds: float) -> Iterator[tuple[str, float]]:
    with running_site(f"steps_{stack.key}", stack.programs, database) as (site, supervisor):
        wait_until(lambda: stack.answers(site, "tenSteps", 5.0), stack.name, supervisor)
        _load(stack, site, supervisor, CALLERS[-1], 1.0)  # warm-up
        for callers in CALLERS:
            result = _load(stack, site, supervisor, callers, seconds)
            yield _title(callers), result.calls_per_second
            yield f"p50, {_of(callers)}, ms", result.p50_ms
        for _ in range(TIMES):
            yield ONE, 1000 * stack.ask(site, "oneStep", {}, TIMEOUT)


def _load(
    stack: Stack, site: Site, supervisor: Watched, callers: int, seconds: float
) -> LoadResult:
    """Raises `CallboardError` where a single response was wrong."""
    load = Load(
        host=HOST,
        port=site.port,
        request=stack.request(site, "tenSteps").as_bytes().decode(),
        expect=DONE,
        callers=callers,
        seconds=seconds,
        lead_in=0.3,
    )
    result = generate(load, stack.name, supervisor.tick)
    if result.errors:
        raise CallboardError(f"{stack.name}: wrong responses: {result.errors}")
    return result


def _of(callers: int) -> str:
    return f"{callers} caller{'s' if callers > 1 else ''}"


def _title(callers: int) -> str:
    return f"10 steps, {_of(callers)}, calls/s"


def _report(stacks: Sequence[Stack], found: Found) -> Iterator[str]:
    names = [stack.name for stack in stacks]
    rows = [
        Row(
            title=title,
            more_is_better=title.endswith("calls/s"),
            values={
                name: statistics.median(found[name, title])
                for name in names
                if (name, title) in found
            },
        )
        for title in dict.fromkeys(title for _, title in found)
    ]
    yield ""
    yield from comparison(names, rows)
    yield ""
    yield "Goals"
    yield from map(str, _goals({row.title: row for row in rows}))
    yield ""
    yield "Settings (caveats: docs/benchmark.md)"
    yield from (f"  {stack.name}: {stack.settings}" for stack in stacks)


def _goals(rows: Mapping[str, Row]) -> Iterator[Goal]:
    for callers in CALLERS:
        if (ratio := rows[_title(callers)].ratio(OURS.name, DBOS.name)) is not None:
            text = f"10 steps, {_of(callers)}, calls a second against DBOS"
            yield Goal(text=text, value=ratio, target=5.0, at_least=True)
    for stack in (OURS, OURS_ASYNC):
        if (value := rows[ONE].values.get(stack.name)) is not None:
            text = f"one step, milliseconds ({stack.name})"
            yield Goal(text=text, value=value, target=0.3, at_least=False)


if __name__ == "__main__":
    main()
