"""Runs the benchmark.

    python -m benchmarks [--rounds 3] [--seconds 3] [--only callboard redis] [--quick]

Every stack has its turn in every round; each round begins with another one, so that what the
machine does meanwhile hits all alike. Results are written as text, JSON and PNG.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.machine import Machine
from benchmarks.plot import plot
from benchmarks.results import Measurement, Results
from benchmarks.rounds import in_turn
from benchmarks.servers import running_database
from benchmarks.stacks import STACKS, Stack
from benchmarks.table import report
from benchmarks.turn import Plan, take_turn
from callboard.errors import CallboardError

__all__ = ["main"]


def main() -> None:
    """Measure, print the table, write the results; exits 1 where a response was wrong."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # stop what was started
    options = _options()
    machine = Machine.this()
    stacks = [stack for stack in STACKS if stack.key in options.only]
    plan = Plan(seconds=options.seconds)
    try:
        peers = [stack.key for stack in STACKS if stack.kind != "ours"]
        results = Results(_measurements(stacks, plan, options.rounds), peers=peers)
    except CallboardError as error:
        sys.exit(str(error))
    text = report(results, machine, options.rounds, options.seconds)
    print(f"\n{text}\n")
    _write(options.output, results, machine, text)
    if results.errors:
        listed = "\n".join(f"  {count} x {what}" for what, count in results.errors.items())
        sys.exit(f"Wrong responses; this run counts for nothing:\n{listed}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__.splitlines()[0])
    keys = [stack.key for stack in STACKS]
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="per measurement")
    parser.add_argument("--only", nargs="+", choices=keys, default=keys, metavar="NAME",
                        help=", ".join(keys))  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="one round of one second")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 1, 1.0
    return options


def _measurements(stacks: Sequence[Stack], plan: Plan, rounds: int) -> Iterator[Measurement]:
    with running_database() as database:
        for number, stack in in_turn(stacks, rounds):
            for measurement in take_turn(stack, database, plan, number + 1):
                print(f" {measurement.load.calls_per_second:.0f}", end="", flush=True)
                yield measurement


def _write(folder: Path, results: Results, machine: Machine, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    stem.with_suffix(".txt").write_text(f"{text}\n")
    content = {
        "machine": asdict(machine),
        "settings": {stack.key: stack.settings for stack in STACKS if stack.key in results.stacks},
        "measurements": [asdict(found) for found in results.measurements],
    }
    stem.with_suffix(".json").write_text(json.dumps(content, indent=1))
    plot(results, stem.with_suffix(".png"))
    print(f"Written: {stem}.txt, .json, .png")


if __name__ == "__main__":
    main()
