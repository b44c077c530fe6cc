"""The results as text."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.goals import goals
from benchmarks.jobs import WAIT
from benchmarks.machine import Machine
from benchmarks.results import CALLERS, Figures, Results
from benchmarks.stacks import STACKS, Stack

__all__ = ["JOB_TITLES", "measured", "report"]

NAME_WIDTH = max(len(stack.name) for stack in STACKS)
HEAD = f"{'calls/s':>8}{'p50':>8}{'p99':>8}{'x calls':>8}{'x p50':>8}"
JOB_TITLES = {"noop": "no-op", "upsert": "one upsert", WAIT: "waits 1 s"}


def report(results: Results, machine: Machine, rounds: int, seconds: float) -> str:
    """Tables, ratios, goals, CPU per call and the settings of each stack."""
    lines = [
        f"{machine}",
        f"medians of {rounds} round(s), {seconds:g} s per measurement; "
        "latencies in milliseconds; ratio: Callboard / the stack of the row",
    ]
    jobs = [job for job in JOB_TITLES if measured(results, job)]
    for job in jobs:
        lines += ["", *(_waiting_table(results) if job == WAIT else _table(results, job))]
    for job in jobs:
        if found := [*_goals(results, job)]:
            lines += ["", *found]
    if found := [*_cpu(results)]:
        lines += ["", "CPU milliseconds per call, and how many cores that kept busy", *found]
    lines += ["", *_settings(results)]
    return "\n".join(lines)


def measured(results: Results, job: str) -> list[Stack]:
    """The stacks that were measured with this job, in the order of the table."""
    return [stack for stack in STACKS if stack.key in results.stacks and job in stack.jobs]


def _ours(job: str) -> Stack:
    return next(stack for stack in STACKS if stack.kind == "ours" and job in stack.jobs)


def _table(results: Results, job: str) -> Iterator[str]:
    groups = [_callers(number) for number in CALLERS[job]]
    yield f"{JOB_TITLES[job]:<{NAME_WIDTH}}" + "".join(f"  {group:^40}" for group in groups)
    yield " " * NAME_WIDTH + f"  {HEAD}" * len(groups)
    for stack in measured(results, job):
        cells = [_cell(results, stack, job, callers) for callers in CALLERS[job]]
        yield f"{stack.name:<{NAME_WIDTH}}" + "".join(f"  {cell}" for cell in cells)


def _waiting_table(results: Results) -> Iterator[str]:
    yield f"{JOB_TITLES[WAIT]:<{NAME_WIDTH}}  {HEAD}{'failed':>8}{'workers, MiB':>14}"
    for callers in CALLERS[WAIT]:
        yield _callers(callers)
        for stack in measured(results, WAIT):
            if found := results.figures(stack.key, WAIT, callers):
                cell = _cell(results, stack, WAIT, callers)
                more = f"{found.failed:>8}{found.workers_mib:>14.0f}"
                yield f"  {stack.name:<{NAME_WIDTH}}{cell}{more}"


def _callers(number: int) -> str:
    return f"{number:,} caller{'s' if number > 1 else ''}"


def _cell(results: Results, stack: Stack, job: str, callers: int) -> str:
    found = results.figures(stack.key, job, callers)
    if found is None:
        return " " * len(HEAD)
    ours = None if stack.kind == "ours" else results.figures(_ours(job).key, job, callers)
    ratios = f"{'':>8}{'':>8}" if ours is None else _ratios(ours, found)
    return f"{found.calls_per_second:>8.0f}{found.p50_ms:>8.2f}{found.p99_ms:>8.2f}{ratios}"


def _ratios(ours: Figures, other: Figures) -> str:
    if not other.calls_per_second or not other.p50_ms:
        return f"{'-':>8}{'-':>8}"
    throughput = ours.calls_per_second / other.calls_per_second
    return f"{throughput:>8.2f}{ours.p50_ms / other.p50_ms:>8.2f}"


def _goals(results: Results, job: str) -> Iterator[str]:
    for number, goal in enumerate(goals(results, job)):
        if not number:
            yield f"Goals, {JOB_TITLES[job]}"
        yield str(goal)


def _cpu(results: Results) -> Iterator[str]:
    for job, title in JOB_TITLES.items():
        for stack in measured(results, job):
            if stack.kind == "ours":
                yield from (
                    f"  {title}, {stack.name}, {line}" for line in _costs(results, stack, job)
                )


def _costs(results: Results, stack: Stack, job: str) -> Iterator[str]:
    for callers in CALLERS[job]:
        if found := results.figures(stack.key, job, callers):
            groups = ", ".join(f"{name} {cost:.2f}" for name, cost in found.cpu_ms.items())
            total = sum(found.cpu_ms.values())
            busy = (total + found.generator_ms) * found.calls_per_second / 1000
            yield (
                f"{callers:>4} callers: {total:.2f} = {groups}; "
                f"generator {found.generator_ms:.2f}; {busy:.2f} cores"
            )


def _settings(results: Results) -> Iterator[str]:
    yield "Settings (caveats: docs/benchmark.md)"
    for stack in STACKS:
        if stack.key in results.stacks:
            yield f"  {stack.name}: {stack.settings}"
