"""A schedule: an action that runs as the application, at planned times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["Schedule"]


@dataclass(frozen=True, slots=True)
class Schedule:
    """One entry of ``SCHEDULES`` in ``actions/schedules.py``; checked at start.

    Either ``every_minutes`` (1..10080; fires at multiples of it since the epoch) or ``cron``
    (5 fields) with ``timezone`` (IANA name). The run's caller is the owner.
    """

    name: str  # a letter, then up to 63 letters, digits, `_` or `-`
    action: str  # the name of an action
    every_minutes: int | None = field(default=None, kw_only=True)
    cron: str | None = field(default=None, kw_only=True)
    timezone: str | None = field(default=None, kw_only=True)
    params: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    #: at first sight; pausing and resuming by hand outlives restarts
    paused: bool = field(default=False, kw_only=True)
    #: which of the fires that were missed while no beat ran are made up for
    catch_up: Literal["none", "last", "all"] = field(default="last", kw_only=True)
    #: what a fire does while the last run is still going
    overlap: Literal["skip", "allow"] = field(default="skip", kw_only=True)

    @property
    def timing(self) -> str:
        """When it fires, for people: ``every 5 minutes`` or ``0 9 * * * America/New_York``."""
        if self.every_minutes is None:
            return f"{self.cron} {self.timezone}"
        return "every minute" if self.every_minutes == 1 else f"every {self.every_minutes} minutes"
