"""The results as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.results import CALLERS, JOB_NAMES, Results
from benchmarks.stacks import STACKS, Stack
from benchmarks.table import JOB_TITLES

__all__ = ["plot"]

COLOURS = ("#9ecae1", "#4292c6", "#084594")  # by number of callers


def plot(results: Results, path: Path) -> None:
    """Write a PNG: calls per second, and latency from p50 to p99, for each job."""
    mpl.use("agg")  # no window
    stacks = [stack for stack in STACKS if stack.key in results.stacks]
    figure = Figure(figsize=(13, 8), layout="constrained")
    axes = figure.subplots(2, len(JOB_NAMES), squeeze=False)
    for column, job in enumerate(JOB_NAMES):
        axes[0][column].set_title(JOB_TITLES[job])
        _throughput(axes[0][column], results, stacks, job)
        _latency(axes[1][column], results, stacks, job)
    axes[0][0].legend()
    figure.savefig(path, dpi=120)


def _throughput(axis: Any, results: Results, stacks: Sequence[Stack], job: str) -> None:
    for place, callers in enumerate(CALLERS):
        found = [results.figures(stack.key, job, callers) for stack in stacks]
        axis.barh(
            _rows(stacks, place),
            [figures.calls_per_second if figures else 0 for figures in found],
            height=0.27,
            color=COLOURS[place],
            label=f"{callers} caller{'s' if callers > 1 else ''}",
        )
    _name_rows(axis, stacks)
    axis.set_xlabel("calls per second")


def _latency(axis: Any, results: Results, stacks: Sequence[Stack], job: str) -> None:
    for place, callers in enumerate(CALLERS):
        found = [results.figures(stack.key, job, callers) for stack in stacks]
        axis.barh(
            _rows(stacks, place),
            [figures.p99_ms - figures.p50_ms if figures else 0 for figures in found],
            left=[figures.p50_ms if figures else 1 for figures in found],
            height=0.27,
            color=COLOURS[place],
        )
    _name_rows(axis, stacks)
    axis.set_xscale("log")
    axis.set_xlabel("milliseconds, from p50 to p99")


def _rows(stacks: Sequence[Stack], place: int) -> list[float]:
    return [row + 0.28 * (place - 1) for row in range(len(stacks))]


def _name_rows(axis: Any, stacks: Sequence[Stack]) -> None:
    axis.set_yticks(range(len(stacks)), [stack.name for stack in stacks])
    axis.invert_yaxis()
    axis.grid(axis="x", alpha=0.3)
