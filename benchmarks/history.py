"""What the run history costs: calls per second in a burst, while it lasts, and the catching up.

    python -m benchmarks.history [--seconds 60]

In a burst the history moves few runs; after half a minute it has to keep up
(`worker.archive.archiver`). So the first rows show calls without most of it, the last ones with all
of it, and the line below them what one run costs when nothing else goes on.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from typing import NamedTuple

import redis

from benchmarks.blocked import running_stack
from benchmarks.cpu import cpu_seconds
from benchmarks.generator import generate
from benchmarks.jobs import DONE
from benchmarks.load import Load, LoadResult
from benchmarks.servers import Watched
from benchmarks.stacks.base import HOST, Site
from benchmarks.stacks.ours import OURS
from callboard.connections.keys import Keys
from callboard.runs.ended import Ended
from callboard.stack.process import Process
from worker.archive.archiver import BEHIND_SECONDS

KEYS = Keys()

CALLERS = 16
WINDOW = 5.0  # seconds


class Row(NamedTuple):
    """One window."""

    since: float  # seconds from the start of the load
    calls_per_second: float
    waiting: int  # runs that are not in the history at its end


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2 * BEHIND_SECONDS)
    options = parser.parse_args()
    with (
        running_stack() as (site, supervisor, database),
        redis.Redis.from_url(site.redis_url) as client,
    ):
        ended = Ended(client, KEYS)
        _load(site)  # warm-up
        _wait_until_empty(ended, supervisor)
        rows = _rows(site, ended, options.seconds)
        _print(rows)
        _catch_up(ended, supervisor, [*supervisor.running, *database.processes])


def _rows(site: Site, ended: Ended, seconds: float) -> list[Row]:
    rows, started = [], time.monotonic()
    while (since := time.monotonic() - started) < seconds:
        rows.append(Row(since, _load(site).calls_per_second, len(ended)))
    return rows


def _print(rows: list[Row]) -> None:
    print(f"{'seconds':>8} {'calls/s':>8} {'not in the history':>19}")
    for row in rows:
        print(f"{row.since:>8.0f} {row.calls_per_second:>8.0f} {row.waiting:>19}")
    burst = [row.calls_per_second for row in rows if row.since + WINDOW < BEHIND_SECONDS]
    later = [row.calls_per_second for row in rows if row.since > BEHIND_SECONDS]
    if burst and later:
        cost = 1 - statistics.mean(later) / statistics.mean(burst)
        print(f"keeping up costs {cost:.1%} of the burst's calls per second")


def _catch_up(ended: Ended, supervisor: Watched, processes: Sequence[Process]) -> None:
    runs, before, started = len(ended), cpu_seconds(processes), time.monotonic()
    _wait_until_empty(ended, supervisor)
    if runs:
        took = time.monotonic() - started
        after = cpu_seconds(processes)
        spent = {name: 1000 * (after[name] - before[name]) / runs for name in after}
        listed = ", ".join(f"{name} {ms:.2f}" for name, ms in spent.items() if ms >= 0.005)
        print(f"{runs} runs moved in {took:.1f} s; CPU milliseconds a run: {listed}")


def _wait_until_empty(ended: Ended, supervisor: Watched) -> None:
    while len(ended):
        supervisor.tick()


def _load(site: Site) -> LoadResult:
    load = Load(
        host=HOST,
        port=site.port,
        request=OURS.request(site, "noop").as_bytes().decode(),
        expect=DONE,
        callers=CALLERS,
        seconds=WINDOW,
        lead_in=0.0,
    )
    return generate(load, "Callboard", lambda: time.sleep(0.1))


if __name__ == "__main__":
    main()
