"""The results as text."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.goals import goals
from benchmarks.machine import Machine
from benchmarks.results import CALLERS, JOB_NAMES, Figures, Results
from benchmarks.stacks import OURS, STACKS

__all__ = ["report"]

NAME_WIDTH = max(len(stack.name) for stack in STACKS)
JOB_TITLES = {"noop": "no-op", "upsert": "one upsert"}


def report(results: Results, machine: Machine, rounds: int, seconds: float) -> str:
    """Tables, ratios, goals, CPU per call and the settings of each stack."""
    lines = [
        f"{machine}",
        f"medians of {rounds} round(s), {seconds:g} s per measurement; "
        "latencies in milliseconds; ratio: Callboard / the stack of the row",
    ]
    for job in JOB_NAMES:
        lines += ["", *_table(results, job)]
    if OURS.key in results.stacks:
        for job in JOB_NAMES:
            lines += ["", *_goals(results, job)]
        lines += ["", *_cpu(results)]
    lines += ["", *_settings(results)]
    return "\n".join(lines)


def _table(results: Results, job: str) -> Iterator[str]:
    groups = [f"{callers} caller{'s' if callers > 1 else ''}" for callers in CALLERS]
    yield f"{JOB_TITLES[job]:<{NAME_WIDTH}}" + "".join(f"  {group:^40}" for group in groups)
    head = f"{'calls/s':>8}{'p50':>8}{'p99':>8}{'x calls':>8}{'x p50':>8}"
    yield " " * NAME_WIDTH + f"  {head}" * len(CALLERS)
    for stack in STACKS:
        if stack.key in results.stacks:
            cells = [_cell(results, stack.key, job, callers) for callers in CALLERS]
            yield f"{stack.name:<{NAME_WIDTH}}" + "".join(f"  {cell}" for cell in cells)


def _cell(results: Results, stack: str, job: str, callers: int) -> str:
    found = results.figures(stack, job, callers)
    if found is None:
        return " " * 40
    ours = None if stack == OURS.key else results.figures(OURS.key, job, callers)
    ratios = f"{'':>8}{'':>8}" if ours is None else _ratios(ours, found)
    return f"{found.calls_per_second:>8.0f}{found.p50_ms:>8.2f}{found.p99_ms:>8.2f}{ratios}"


def _ratios(ours: Figures, other: Figures) -> str:
    if not other.calls_per_second or not other.p50_ms:
        return f"{'-':>8}{'-':>8}"
    throughput = ours.calls_per_second / other.calls_per_second
    return f"{throughput:>8.2f}{ours.p50_ms / other.p50_ms:>8.2f}"


def _goals(results: Results, job: str) -> Iterator[str]:
    yield f"Goals, {JOB_TITLES[job]}"
    for goal in goals(results, job):
        bound = "at least" if goal.at_least else "at most"
        verdict = "met" if goal.met else "MISSED"
        yield f"  {goal.text:<72}{goal.value:>7.2f}  ({bound} {goal.target:g})  {verdict}"


def _cpu(results: Results) -> Iterator[str]:
    yield "CPU milliseconds per call, Callboard"
    for job in JOB_NAMES:
        for callers in CALLERS:
            if found := results.figures(OURS.key, job, callers):
                groups = ", ".join(f"{name} {cost:.2f}" for name, cost in found.cpu_ms.items())
                total = sum(found.cpu_ms.values())
                yield f"  {JOB_TITLES[job]}, {callers:>2} callers: {total:.2f} = {groups}"


def _settings(results: Results) -> Iterator[str]:
    yield "Settings (caveats: docs/benchmark.md)"
    for stack in STACKS:
        if stack.key in results.stacks:
            yield f"  {stack.name}: {stack.settings}"
