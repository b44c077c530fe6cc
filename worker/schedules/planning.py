"""The plan for the fires of a schedule that are due: which run, which are missed or skipped."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from callboard.schedules.fires import Fire, FireOutcome, fire_id
from callboard.sdk.schedule import Schedule

__all__ = ["ON_TIME", "plan_fires"]

ON_TIME = timedelta(seconds=10)  # a fire that a beat meets within it was not missed


def plan_fires(
    schedule: Schedule, due: Sequence[datetime], now: datetime, *, busy: bool
) -> list[Fire]:
    """The rows of the fires in ``due`` (oldest first). ``busy``: the last run is still going.

    What ``catch_up="all"`` makes up for is never skipped: with ``overlap="skip"`` these runs
    follow one another.
    """
    running = _running(schedule, due, now)
    behind = schedule.catch_up == "all" and any(planned < now - ON_TIME for planned in due)
    skip = busy and schedule.overlap == "skip" and not behind

    def outcome(planned: datetime) -> FireOutcome | None:
        if planned not in running:
            return "missed"
        return "skipped" if skip else None

    return [_fire(schedule, planned, now, outcome(planned)) for planned in due]


def _running(schedule: Schedule, due: Sequence[datetime], now: datetime) -> Sequence[datetime]:
    """Those that run, or would if the last run were not still going."""
    if schedule.catch_up == "all":
        return due
    last = due[-1:]
    on_time = [planned for planned in last if planned >= now - ON_TIME]
    return on_time if schedule.catch_up == "none" else last


def _fire(
    schedule: Schedule, planned: datetime, now: datetime, outcome: FireOutcome | None
) -> Fire:
    return Fire(
        run_id=fire_id(schedule.name, planned),
        schedule=schedule.name,
        planned=planned,
        created=now,
        outcome=outcome,
    )
