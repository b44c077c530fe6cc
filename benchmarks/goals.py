"""The goals that Callboard has set itself, and whether a run of the benchmark meets them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.jobs import WAIT, WAIT_SECONDS
from benchmarks.results import Figures, Results
from benchmarks.stacks import (
    CELERY_GET,
    INLINE,
    OURS,
    OURS_ASYNC,
    OURS_ASYNC_MANY,
    REDIS_LIST,
    STACKS,
    TASKIQ_ASYNC,
)

__all__ = ["Goal", "goals"]

BUSY = 16  # callers at which throughput counts
WAITING = 500  # and where they wait
CROWD = 2000  # at which none may fail


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """One goal: ``value`` at least or at most ``target``."""

    text: str
    value: float
    target: float
    at_least: bool

    @property
    def met(self) -> bool:
        """Whether it is reached."""
        return self.value >= self.target if self.at_least else self.value <= self.target

    def __str__(self) -> str:
        bound = "at least" if self.at_least else "at most"
        verdict = "met" if self.met else "MISSED"
        return f"  {self.text:<72}{self.value:>7.2f}  ({bound} {self.target:g})  {verdict}"


def goals(results: Results, job: str) -> list[Goal]:
    """The goals that the measured stacks allow to judge."""
    if job == WAIT:
        return [*_waiting(results)]
    quiet, busy = (results.figures(OURS.key, job, callers) for callers in (1, BUSY))
    if quiet is None or busy is None:
        return []
    return [*_against_peers(results, job, quiet, busy), *_against_floor(results, job, quiet, busy)]


def _against_peers(results: Results, job: str, quiet: Figures, busy: Figures) -> Iterator[Goal]:
    peers = [stack for stack in STACKS if stack.kind == "peer"]
    loaded = {
        peer.name: found.calls_per_second
        for peer in peers
        if (found := results.figures(peer.key, job, BUSY))
    }
    if loaded:
        best = max(loaded, key=lambda name: loaded[name])
        yield Goal(
            text=f"throughput at {BUSY} callers, against the best peer ({best})",
            value=busy.calls_per_second / loaded[best],
            target=1.0,
            at_least=True,
        )
    alone = {
        peer.name: found.p50_ms for peer in peers if (found := results.figures(peer.key, job, 1))
    }
    if alone:
        best = min(alone, key=lambda name: alone[name])
        yield Goal(
            text=f"p50 at 1 caller, against the best peer ({best})",
            value=quiet.p50_ms / alone[best],
            target=1.0,
            at_least=False,
        )
    if celery := results.figures(CELERY_GET.key, job, BUSY):
        inline = results.figures(INLINE.key, job, BUSY)
        most = inline and inline.calls_per_second / celery.calls_per_second
        yield Goal(
            text=f"throughput at {BUSY} callers, against plain Celery"
            + (f" (inline: {most:.2f})" if most else ""),  # what no queue can have
            value=busy.calls_per_second / celery.calls_per_second,
            target=3.5,
            at_least=True,
        )


def _against_floor(results: Results, job: str, quiet: Figures, busy: Figures) -> Iterator[Goal]:
    if floor := results.figures(REDIS_LIST.key, job, BUSY):
        yield Goal(
            text=f"throughput at {BUSY} callers, against the bare Redis list",
            value=busy.calls_per_second / floor.calls_per_second,
            target=0.5,
            at_least=True,
        )
    if floor := results.figures(REDIS_LIST.key, job, 1):
        yield Goal(
            text="p50 at 1 caller, against the bare Redis list",
            value=quiet.p50_ms / floor.p50_ms,
            target=3.0,
            at_least=False,
        )
    yield Goal(
        text=f"p99 against p50, at {BUSY} callers",
        value=busy.p99_ms / busy.p50_ms,
        target=3.0,
        at_least=False,
    )


def _waiting(results: Results) -> Iterator[Goal]:
    """Calls per second and latency are bounded by the wait itself: N callers, N calls a second."""
    if ours := results.figures(OURS_ASYNC.key, WAIT, WAITING):
        yield Goal(
            text=f"calls/s at {WAITING} callers, of the {WAITING / WAIT_SECONDS:.0f} possible",
            value=ours.calls_per_second,
            target=430,
            at_least=True,
        )
        yield Goal(
            text=f"p50 at {WAITING} callers, milliseconds",
            value=ours.p50_ms,
            target=1150,
            at_least=False,
        )
        if taskiq := results.figures(TASKIQ_ASYNC.key, WAIT, WAITING):
            yield from _against_taskiq(ours, taskiq)
    for stack in (OURS_ASYNC, OURS_ASYNC_MANY):
        if ours := results.figures(stack.key, WAIT, CROWD):
            yield Goal(
                text=f"failed calls at {CROWD:,} callers, {stack.name}",
                value=ours.failed,
                target=0,
                at_least=False,
            )
    if ours := results.figures(OURS_ASYNC_MANY.key, WAIT, CROWD):
        yield Goal(
            text=f"calls/s at {CROWD:,} callers, {OURS_ASYNC_MANY.name}",
            value=ours.calls_per_second,
            target=900,
            at_least=True,
        )


def _against_taskiq(ours: Figures, taskiq: Figures) -> Iterator[Goal]:
    yield Goal(
        text=f"calls/s at {WAITING} callers, against {TASKIQ_ASYNC.name} "
        f"(possible: {WAITING / WAIT_SECONDS / taskiq.calls_per_second:.2f})",
        value=ours.calls_per_second / taskiq.calls_per_second,
        target=1.2,
        at_least=True,
    )
    yield Goal(
        text=f"memory of all worker processes, against {TASKIQ_ASYNC.name}",
        value=ours.workers_mib / taskiq.workers_mib,
        target=1.5,
        at_least=False,
    )
