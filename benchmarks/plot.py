"""The results as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.results import CALLERS, Results
from benchmarks.stacks import Stack
from benchmarks.table import JOB_TITLES, measured

__all__ = ["plot"]

COLOURS = ("#c6dbef", "#6baed6", "#2171b5", "#08306b")  # by number of callers


def plot(results: Results, path: Path) -> None:
    """Write a PNG: calls per second, and latency from p50 to p99, for each job."""
    mpl.use("agg")  # no window
    jobs = {job: stacks for job in JOB_TITLES if (stacks := measured(results, job))}
    figure = Figure(figsize=(6.5 * len(jobs), 8), layout="constrained")
    axes = figure.subplots(2, len(jobs), squeeze=False)
    for column, (job, stacks) in enumerate(jobs.items()):
        axes[0][column].set_title(JOB_TITLES[job])
        _throughput(axes[0][column], results, stacks, job)
        _latency(axes[1][column], results, stacks, job)
    figure.savefig(path, dpi=120)


def _throughput(axis: Any, results: Results, stacks: Sequence[Stack], job: str) -> None:
    for place, callers in enumerate(CALLERS[job]):
        found = [results.figures(stack.key, job, callers) for stack in stacks]
        axis.barh(
            _rows(stacks, place),
            [figures.calls_per_second if figures else 0 for figures in found],
            height=0.2,
            color=COLOURS[place],
            label=f"{callers} caller{'s' if callers > 1 else ''}",
        )
    _name_rows(axis, stacks)
    axis.set_xlabel("calls per second")
    axis.legend()


def _latency(axis: Any, results: Results, stacks: Sequence[Stack], job: str) -> None:
    for place, callers in enumerate(CALLERS[job]):
        found = [results.figures(stack.key, job, callers) for stack in stacks]
        axis.barh(
            _rows(stacks, place),
            [figures.p99_ms - figures.p50_ms if figures else 0 for figures in found],
            left=[figures.p50_ms if figures else 1 for figures in found],
            height=0.2,
            color=COLOURS[place],
        )
    _name_rows(axis, stacks)
    axis.set_xscale("log")
    axis.set_xlabel("milliseconds, from p50 to p99")


def _rows(stacks: Sequence[Stack], place: int) -> list[float]:
    return [row + 0.21 * (place - 1) for row in range(len(stacks))]


def _name_rows(axis: Any, stacks: Sequence[Stack]) -> None:
    axis.set_yticks(range(len(stacks)), [stack.name for stack in stacks])
    axis.invert_yaxis()
    axis.grid(axis="x", alpha=0.3)
