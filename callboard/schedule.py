"""A schedule: an action that runs as the application, at planned times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["Schedule"]


@dataclass(frozen=True, slots=True)
class Schedule:
    """One entry of ``SCHEDULES`` in ``actions/schedules.py``.

    Either ``every_minutes`` (1..10080; fires at multiples of it since the epoch) or ``cron``
    (5 fields) with ``timezone`` (IANA name). The run's caller is the owner.
    """

    name: str
    action: str
    every_minutes: int | None = field(default=None, kw_only=True)
    cron: str | None = field(default=None, kw_only=True)
    timezone: str | None = field(default=None, kw_only=True)
    params: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    paused: bool = field(default=False, kw_only=True)
    catch_up: Literal["none", "last", "all"] = field(default="last", kw_only=True)
    overlap: Literal["skip", "allow"] = field(default="skip", kw_only=True)
