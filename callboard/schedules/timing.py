"""The planned times of a schedule, in UTC.

``every_minutes=N`` fires at multiples of N minutes since the epoch. A cron entry is read in
its own zone, with Debian cron's rules for the days on which clocks are changed:

- minute and hour are fixed (``30 2 * * *``): each matching local time fires once. One that does
  not exist fires at the first valid moment after it, one that occurs twice at the first.
- the minute or the hour field starts with ``*`` (``*/15 * * * *``): every instant whose local
  time matches fires, in both passes of a repeated hour.

`cronsim` reads the expression and walks plain local times; what a local time means on the
zone's clock is decided here, for shifts of any size.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from zoneinfo import ZoneInfo

from cronsim import CronSim

from callboard.sdk.schedule import Schedule

__all__ = ["fires_after", "latest_fires"]

SECOND = timedelta(seconds=1)
PROBE = timedelta(days=1)  # no zone changes its offset twice within it


def fires_after(schedule: Schedule, moment: datetime) -> Iterator[datetime]:
    """The planned times later than ``moment``, in UTC, in order, without end.

    It ends only for a cron entry that matches no day of the next 50 years.
    """
    if schedule.every_minutes is not None:
        return _multiples(schedule.every_minutes * 60, moment)
    cron, zone = schedule.cron or "", ZoneInfo(schedule.timezone or "UTC")
    minute, hour, *_ = cron.split()
    if minute.startswith("*") or hour.startswith("*"):
        return _instants(cron, zone, moment)
    return _local_times(cron, zone, moment)


def latest_fires(
    schedule: Schedule, after: datetime, until: datetime, limit: int
) -> list[datetime]:
    """The last ``limit`` planned times in ``(after, until]``, oldest first."""
    span = timedelta(minutes=limit)  # two fires are at least a minute apart
    while True:
        start = max(after, until - span)
        found = list(takewhile(lambda planned: planned <= until, fires_after(schedule, start)))
        if start == after or len(found) >= limit:
            return found[-limit:]
        span *= 2


def _multiples(step: int, moment: datetime) -> Iterator[datetime]:
    """Each ``step`` seconds since the epoch."""
    seconds = int(moment.timestamp()) // step * step
    while True:
        seconds += step
        yield datetime.fromtimestamp(seconds, UTC)


def _local_times(cron: str, zone: ZoneInfo, moment: datetime) -> Iterator[datetime]:
    """Each matching local time, once."""
    last = moment
    for local in CronSim(cron, _local(zone, moment)):
        planned = _first_moment(zone, local)
        if planned > last:  # the start may lie in the second pass; a gap may hold two matches
            last = planned
            yield planned


def _instants(cron: str, zone: ZoneInfo, moment: datetime) -> Iterator[datetime]:
    """Each instant whose local time matches: one stretch of constant offset after the other."""
    reached, local = moment.astimezone(UTC), _local(zone, moment)
    while True:
        offset, change = _offset(zone, reached), None
        for found in CronSim(cron, local):
            planned = (found - offset).replace(tzinfo=UTC)
            change = _change(zone, reached, planned)
            if change is not None:
                break
            reached = planned
            yield planned
        if change is None:
            return
        reached, local = change, _local(zone, change) - SECOND  # the change itself may match


def _first_moment(zone: ZoneInfo, local: datetime) -> datetime:
    """When clocks first show this local time; the end of the gap for one that they skip."""
    planned = local.replace(tzinfo=zone).astimezone(UTC)
    if _local(zone, planned) == local:
        return planned
    # PEP 495: in a gap, fold 0 reads by the offset before it, fold 1 by the one after it
    before = local.replace(tzinfo=zone, fold=1).astimezone(UTC)
    return _change(zone, before, planned) or planned


def _change(zone: ZoneInfo, after: datetime, until: datetime) -> datetime | None:
    """The first instant in ``(after, until]`` with another offset than ``after`` has."""
    offset = _offset(zone, after)
    while after < until:
        probe = min(after + PROBE, until)
        if _offset(zone, probe) != offset:
            return _bisect(zone, after, probe)
        after = probe
    return None


def _bisect(zone: ZoneInfo, low: datetime, high: datetime) -> datetime:
    """The first whole second with the offset of ``high``; ``low`` has another."""
    offset, before, first = _offset(zone, high), int(low.timestamp()), int(high.timestamp())
    while first - before > 1:
        middle = (before + first) // 2
        if _offset(zone, datetime.fromtimestamp(middle, UTC)) == offset:
            first = middle
        else:
            before = middle
    return datetime.fromtimestamp(first, UTC)


def _offset(zone: ZoneInfo, moment: datetime) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta()


def _local(zone: ZoneInfo, moment: datetime) -> datetime:
    return moment.astimezone(zone).replace(tzinfo=None, fold=0)
