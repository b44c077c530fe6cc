"""One run of the suite: start the stack, load it, break it, let it settle, count."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from chaos.checks import check_calls, check_effects, check_intervals, check_records
from chaos.faults import Fault, bag, inject
from chaos.inspection import inspected
from chaos.intervals import read_intervals
from chaos.load import ASYNC_CLIENTS, CLIENTS, Load
from chaos.report import MARGIN, Report
from chaos.settling import settle
from chaos.stack import WORKERS, Stack, running_stack
from chaos.started import check_outbox, check_started

__all__ = ["Plan", "run_suite"]

CHILDREN = CLIENTS // len(WORKERS)
"""Of each worker. That recovery is bounded is promised while a child is free. A client has one
call at a time, and what runs start takes moments; so with both workers there is nearly always one,
with one of them calls wait in line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do."""

    faults: int
    runs: int  # calls at least
    seed: int
    seconds: float  # after which no new fault is injected
    gap: float = 3.5  # seconds between two faults, on average
    lease: float = 5.0  # seconds: CALLBOARD_RECOVERY
    margin: float = MARGIN  # seconds that a recovery may take beyond it
    fsync: str = "always"  # Valkey's appendfsync


def run_suite(plan: Plan, folder: Path, tell: Callable[[str], None]) -> Report:
    """Run it in ``folder``, which keeps logs and data; ``tell`` takes a line per fault."""
    variables = {"CALLBOARD_RECOVERY": f"{plan.lease:g}"}
    with running_stack(folder, fsync=plan.fsync, children_each=CHILDREN, **variables) as stack:
        secret = stack.environment["JWT_SECRET"]
        inspect = partial(inspected, stack)
        load = Load(stack.url, secret, plan.seed, async_clients=ASYNC_CLIENTS, inspect=inspect)
        started = time.monotonic()
        load.start()
        try:
            faults = _break(stack, plan, load, started, tell)
            stack.wait_ready()
        finally:
            load.stop()
        seconds = time.monotonic() - started
        settle(stack)
        return _counted(stack, plan, load, faults, seconds)


def _break(
    stack: Stack, plan: Plan, load: Load, started: float, tell: Callable[[str], None]
) -> list[Fault]:
    """The faults, one after the other; then wait until enough calls were made."""
    chance = random.Random(plan.seed)
    faults: list[Fault] = []
    kinds = islice(bag(chance), plan.faults)
    kind = next(kinds, None)
    next_at = started + plan.gap
    while kind is not None or len(load.calls) < plan.runs:
        now = time.monotonic()
        if now - started > plan.seconds:
            break
        if kind is not None and now >= next_at and (fault := inject(stack, kind, chance)):
            faults.append(fault)
            tell(f"{fault.at - started:7.1f} s  {len(faults):>4}  {kind}")
            kind = next(kinds, None)
            next_at = now + chance.uniform(0.3, 1.7) * plan.gap
        stack.look_after()
    return faults


def _counted(
    stack: Stack, plan: Plan, load: Load, faults: Sequence[Fault], seconds: float
) -> Report:
    kills = {pid: fault.at for fault in faults for pid in fault.killed}
    intervals = read_intervals(stack.intervals, kills)
    with stack.redis() as client, stack.database() as database:
        findings = [
            *check_calls(load.calls),
            *check_records(client, load.calls),
            *check_effects(database, load.calls),
            *check_started(database, load.calls),
            *check_outbox(database),
            *check_intervals(intervals),
        ]
    return Report(
        seed=plan.seed,
        lease=plan.lease,
        margin=plan.margin,
        seconds=seconds,
        calls=load.calls,
        faults=faults,
        intervals=intervals,
        away=stack.away,
        findings=findings,
        problems=stack.problems,
    )
