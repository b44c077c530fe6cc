"""The deadline: the moment by which a run's calls to the database give up."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext

import pymongo

from callboard.errors import DatabaseUnavailable

__all__ = ["time_left", "within"]


def time_left(deadline: float | None) -> float:
    """Seconds until ``deadline`` (of `time.monotonic`); infinite without one."""
    return float("inf") if deadline is None else deadline - time.monotonic()


def within(deadline: float | None) -> AbstractContextManager[object]:
    """Bound PyMongo's calls inside the block; raises `DatabaseUnavailable` if no time is left."""
    if deadline is None:
        return nullcontext()
    seconds = time_left(deadline)
    if seconds <= 0:  # for PyMongo 0 would mean no bound at all
        raise DatabaseUnavailable("No time is left for the database")
    return pymongo.timeout(seconds)
