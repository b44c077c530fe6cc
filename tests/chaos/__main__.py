"""Runs the chaos suite; exits 1 where something was lost, doubled or slow.

make chaos ARGS="--faults 200 --runs 1000 --seed 7"
"""

from __future__ import annotations

import argparse
import secrets
import signal
import sys
import tempfile
from pathlib import Path

from chaos.suite import Plan, run_suite


def main() -> None:
    """Run it and print the report."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # stop what was started
    options = _options()
    plan = Plan(
        faults=options.faults,
        runs=options.runs,
        seed=options.seed,
        seconds=options.minutes * 60,
        fsync=options.fsync,
    )
    _tell(f"seed {plan.seed}; data and logs in {options.folder}")
    report = run_suite(plan, options.folder, _tell)
    _tell(f"\n{report}")
    sys.exit(not report.passed)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__.splitlines()[0])
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--runs", type=int, default=1000, help="at least")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    parser.add_argument("--minutes", type=float, default=20, help="at most")
    parser.add_argument("--fsync", choices=["always", "everysec"], default="always",
                        help="Valkey's appendfsync")  # fmt: skip
    parser.add_argument("--folder", type=Path, help="for data and logs, kept")
    options = parser.parse_args()
    options.folder = options.folder or Path(tempfile.mkdtemp(prefix="chaos-"))
    return options


def _tell(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - a command


if __name__ == "__main__":
    main()
