"""Ordinals: the so-manieth create, start or request of a run.

They are the same at each start of its handler: ids derive from them, so that a rerun finds what it
made before. The function of a step is not called again once the step is kept, so what it does
counts by itself, under the step's name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["Ordinals", "current_step", "within_step"]


class Ordinals:
    """Those of one start of a handler."""

    def __init__(self) -> None:
        self._counts: defaultdict[str, int] = defaultdict(int)

    def next(self, what: str) -> str:
        """The next one of these: within a step behind its name."""
        name, counts = _step.get() or ("", self._counts)
        counts[what] += 1
        return f"{name}\n{counts[what]}" if name else str(counts[what])


def current_step() -> str:
    """The step whose function calls this; "" for none."""
    return (_step.get() or ("", None))[0]


@contextmanager
def within_step(name: str) -> Iterator[None]:
    """What is called within belongs to the function of this step, which has just begun."""
    before = _step.get()
    _step.set((name, defaultdict(int)))
    try:
        yield
    finally:
        _step.set(before)


_step: ContextVar[tuple[str, defaultdict[str, int]] | None] = ContextVar("step", default=None)
