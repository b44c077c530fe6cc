"""The error for a name that no action has: it tells the nearest ones."""

from __future__ import annotations

import difflib
import heapq
import itertools
from collections.abc import Iterable
from functools import lru_cache

from callboard.errors import UnknownAction

__all__ = ["unknown_action"]

_COMPARED = 20  # names


def unknown_action(name: str, known: Iterable[str]) -> UnknownAction:
    """The error, to be raised; ``known``: the names that there are."""
    near = _nearest(name[:64], known)
    hint = f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
    return UnknownAction(f"Unknown action {name[:64]!r}.{hint}")


def _nearest(name: str, known: Iterable[str]) -> list[str]:
    """The one or two known names most like this one.

    `difflib` takes up to 0.2 ms for a pair of names, and this answers anybody: it compares only the
    names that share most pairs of letters with this one.
    """
    pairs = set(itertools.pairwise(name))
    likely = heapq.nlargest(_COMPARED, known, key=lambda one: len(pairs & _pairs(one)))
    return difflib.get_close_matches(name, likely, n=2, cutoff=0.6)


@lru_cache(maxsize=4096)
def _pairs(name: str) -> frozenset[tuple[str, str]]:
    return frozenset(itertools.pairwise(name))
