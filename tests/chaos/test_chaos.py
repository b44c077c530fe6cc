"""The short form of `make chaos`: each kind of fault, under load."""

from __future__ import annotations

import secrets
from pathlib import Path

from chaos.suite import Plan, run_suite


def test_nothing_is_lost_and_nothing_happens_twice(tmp_path: Path) -> None:
    seed = secrets.randbelow(1_000_000)
    plan = Plan(faults=16, runs=100, seed=seed, seconds=600, gap=3, margin=20)  # CI may be busy
    report = run_suite(plan, tmp_path, lambda line: None)
    assert report.passed, f"\n{report}"
    assert len(report.faults) == plan.faults, f"\n{report}"
