"""The deadline: the moment by which a run's calls to the database give up."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pymongo

from callboard.errors import DatabaseUnavailable

__all__ = ["time_left", "within"]


def time_left(deadline: float | None) -> float:
    """Seconds until ``deadline`` (of `time.monotonic`); infinite without one."""
    return float("inf") if deadline is None else deadline - time.monotonic()


@contextmanager
def within(deadline: float | None) -> Iterator[None]:
    """Bound PyMongo's calls inside the block; raises `DatabaseUnavailable` if no time is left.

    What stops the handler meanwhile has that for its cause: on a busy machine the end of the run's
    time may come before a call has noticed that its own, which is a little shorter, is over.
    """
    if deadline is None:
        yield
        return
    seconds = time_left(deadline)
    if seconds <= 0:  # for PyMongo 0 would mean no bound at all
        raise DatabaseUnavailable("No time is left for the database")
    try:
        with pymongo.timeout(seconds):
            yield
    except Exception:
        raise
    except BaseException as stop:
        raise stop from DatabaseUnavailable("The database did not answer in time")
