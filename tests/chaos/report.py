"""The report: what was done, how long recovery took, what was lost or doubled.

Two recoveries are measured, in seconds. *Served*: from a fault to the next success of a request
that was sent after it. *Rerun*: from the kill of a process that executed a run to the moment when
another process executes that run; the run's own length is not part of it. Time in which a server
that it needs was away, killed and not yet ready again, is part of neither: the suite starts them
again itself. A rerun needs the broker and the database, a request also the API.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from chaos.faults import KINDS, Fault
from chaos.findings import Finding
from chaos.intervals import Interval
from chaos.load import Call
from chaos.stack import API, Away

__all__ = ["MARGIN", "Report"]

SHOWN = 20  # findings
MARGIN = 5.0  # seconds that a recovery may take beyond the lease, on a machine at rest


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One run of the suite."""

    seed: int
    lease: float  # seconds: CALLBOARD_RECOVERY
    margin: float = MARGIN  # seconds
    seconds: float  # how long the load ran
    calls: Sequence[Call]
    faults: Sequence[Fault]
    intervals: Sequence[Interval]
    away: Sequence[Away]
    findings: Sequence[Finding]
    problems: Sequence[str]  # processes that did what they must not

    @property
    def passed(self) -> bool:
        """Nothing lost, nothing doubled, every recovery within the lease and a margin."""
        slowest = max([*self._served().values(), *self._reruns().values()], default=0.0)
        return not self.findings and not self.problems and slowest <= self.lease + self.margin

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        served, reruns = self._served(), self._reruns()
        times = Counter(fault.kind for fault in self.faults)
        yield f"{'fault':<34}{'times':>6}{'longest: served':>18}{'rerun':>8}"
        for kind in KINDS:
            longest = f"{_longest(served, kind):>18}{_longest(reruns, kind):>8}"
            yield f"{kind:<34}{times[kind]:>6}{longest}"
        slowest = max([*served.values(), *reruns.values()], default=0.0)
        called = {call.run_id for call in self.calls}
        executed = {interval.run_id for interval in self.intervals}
        yield ""
        yield f"seed {self.seed}, {self.seconds:.0f} s"
        yield f"faults            {len(self.faults):>7}"
        yield f"runs              {len(called):>7}"
        yield f"started by these  {len(executed - called):>7}"
        yield f"sent again        {sum(call.tries - 1 for call in self.calls):>7}"
        yield f"executed again    {len(self.intervals) - len(executed):>7}"
        for kind in ("lost", "doubled"):
            yield f"{kind:<18}{sum(finding.kind == kind for finding in self.findings):>7}"
        bound = f"at most {self.lease + self.margin:g} s"
        yield f"longest recovery  {slowest:>7.1f} s ({bound})"
        yield from (f"{finding.kind}: {finding.text}" for finding in self.findings[:SHOWN])
        yield from self.problems
        yield "passed" if self.passed else "FAILED"

    def _served(self) -> Mapping[Fault, float]:
        """By fault; the last one may have none after it."""
        told = sorted((call.answered or 0.0, call.sent) for call in self.calls if call.succeeded)
        found: dict[Fault, float] = {}
        for fault in self.faults:
            first = bisect_right(told, (fault.at, 0.0))
            after = (answered for answered, sent in told[first:] if sent >= fault.at)
            if (answered := next(after, None)) is not None:
                found[fault] = _without(self.away, fault.at, answered)
        return found

    def _reruns(self) -> Mapping[Fault, float]:
        """By fault: the slowest of the runs that it hit."""
        by_pid = {pid: fault for fault in self.faults for pid in fault.killed}
        away = [each for each in self.away if each.name != API]
        found: dict[Fault, float] = {}
        for interval in self.intervals:
            if interval.killed and (again := self._next_start(interval)) is not None:
                fault = by_pid[interval.pid]
                waited = _without(away, fault.at, again)
                found[fault] = max(found.get(fault, 0.0), waited)
        return found

    def _next_start(self, interval: Interval) -> float | None:
        later = (
            other.start
            for other in self.intervals
            if other.run_id == interval.run_id and other.start >= interval.end
        )
        return min(later, default=None)


def _without(away: Sequence[Away], start: float, end: float) -> float:
    """The seconds between two moments in which none of these was away."""
    seconds = 0.0
    for _, gone, back in sorted(away, key=lambda each: each.gone):
        seconds += max(0.0, min(gone, end) - start)
        start = min(max(start, back), end)
    return seconds + end - start


def _longest(seconds: Mapping[Fault, float], kind: str) -> str:
    found = [value for fault, value in seconds.items() if fault.kind == kind]
    return f"{max(found):.1f} s" if found else "-"
