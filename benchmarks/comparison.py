"""A table of figures, a row each, and a column for each side that was measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Row", "comparison"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure of each side."""

    title: str
    more_is_better: bool
    values: Mapping[str, float]  # by the side; that of one that has no such thing is missing

    def ratio(self, ours: str, other: str) -> float | None:
        """How many times better ours is; None where one of them is missing."""
        mine, theirs = self.values.get(ours), self.values.get(other)
        if not mine or not theirs:
            return None
        return mine / theirs if self.more_is_better else theirs / mine


def comparison(sides: Sequence[str], rows: Iterable[Row]) -> Iterator[str]:
    """The lines of the table; beside a figure of another side, by how much the first is better."""
    first, *others = sides
    yield (f"{'':34}{first:>19}" + "".join(f"{other:>19}{'':>9}" for other in others)).rstrip()
    for row in rows:
        cells = "".join(
            f"{_figure(row.values.get(other)):>19}{_times(row.ratio(first, other)):>9}"
            for other in others
        )
        yield f"{row.title:34}{_figure(row.values.get(first)):>19}{cells}".rstrip()


def _figure(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.1f} x"
