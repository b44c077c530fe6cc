"""What was measured, and the medians of it."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.jobs import WAIT
from benchmarks.load import LoadResult

__all__ = ["CALLERS", "Cell", "Figures", "Measurement", "Results"]

CALLERS = {"noop": (1, 16, 64), "upsert": (1, 16, 64), WAIT: (1, 50, 500, 2000)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One load on one stack in one round."""

    round: int
    stack: str  # its key
    job: str
    callers: int
    load: LoadResult
    cpu_ms: Mapping[str, float]  # per call, by process group
    workers_mib: float  # PSS of all worker processes, the most that was seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """Where a measurement stands in the table."""

    stack: str
    job: str
    callers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The medians over the rounds of one cell."""

    calls_per_second: float
    p50_ms: float
    p99_ms: float
    slowest: float  # calls per second in the worst round
    fastest: float  # and in the best
    cpu_ms: Mapping[str, float]  # per call, by process group
    generator_ms: float  # CPU of the load generator, per call
    workers_mib: float  # PSS of all worker processes
    failed: int  # calls with a wrong response, in all rounds


class Results:
    """All measurements of one run of the benchmark."""

    def __init__(self, measurements: Iterable[Measurement], *, peers: Iterable[str] = ()) -> None:
        """``peers``: the keys of the stacks that are not ours."""
        self._peers = frozenset(peers)
        self.measurements = tuple(measurements)
        cells: dict[Cell, list[Measurement]] = {}
        for found in self.measurements:
            cell = Cell(stack=found.stack, job=found.job, callers=found.callers)
            cells.setdefault(cell, []).append(found)
        self._figures = {cell: _figures(rounds) for cell, rounds in cells.items()}

    def figures(self, stack: str, job: str, callers: int) -> Figures | None:
        """The medians of a cell; None where it was not measured."""
        return self._figures.get(Cell(stack=stack, job=job, callers=callers))

    @property
    def stacks(self) -> frozenset[str]:
        """The keys of the stacks that were measured."""
        return frozenset(found.stack for found in self.measurements)

    @property
    def errors(self) -> dict[str, int]:
        """What was wrong with responses -> how often.

        A run with errors counts for nothing. In the job that waits, failed calls of a peer are a
        figure of its row instead.
        """
        errors: Counter[str] = Counter()
        for found in self.measurements:
            if found.job == WAIT and found.stack in self._peers:
                continue
            for what, count in found.load.errors.items():
                errors[f"{found.stack}, {found.job}, {found.callers} callers: {what}"] += count
        return dict(errors)


def _figures(rounds: Sequence[Measurement]) -> Figures:
    def median(value: Callable[[Measurement], float]) -> float:
        return statistics.median(value(found) for found in rounds)

    def cost(group: str) -> float:
        return median(lambda found: found.cpu_ms.get(group, 0.0))

    groups = sorted({group for found in rounds for group in found.cpu_ms})
    return Figures(
        calls_per_second=median(lambda found: found.load.calls_per_second),
        p50_ms=median(lambda found: found.load.p50_ms),
        p99_ms=median(lambda found: found.load.p99_ms),
        slowest=min(found.load.calls_per_second for found in rounds),
        fastest=max(found.load.calls_per_second for found in rounds),
        cpu_ms={group: cost(group) for group in groups},
        generator_ms=median(lambda found: found.load.cpu_ms),
        workers_mib=median(lambda found: found.workers_mib),
        failed=sum(sum(found.load.errors.values()) for found in rounds),
    )
