"""Planned times: `every_minutes`, cron, and both on the days on which clocks are changed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import NamedTuple
from zoneinfo import ZoneInfo, available_timezones

from hypothesis import given, settings, strategies as st

from callboard.schedules.timing import fires_after, latest_fires
from callboard.sdk.schedule import Schedule

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
YEARS = (datetime(2020, 1, 1, tzinfo=UTC), datetime(2036, 1, 1, tzinfo=UTC))


def cron(text: str, zone: str) -> Schedule:
    return Schedule("s", "a", cron=text, timezone=zone)


def first(schedule: Schedule, moment: str, count: int) -> list[str]:
    """The next fires after ``moment`` (UTC), in the schedule's own time."""
    zone = ZoneInfo(schedule.timezone or "UTC")
    start = datetime.fromisoformat(f"{moment}+00:00")
    found = islice(fires_after(schedule, start), count)
    return [planned.astimezone(zone).isoformat(" ", "minutes") for planned in found]


class TestEveryMinutes:
    def test_fires_at_multiples_since_the_epoch(self) -> None:
        schedule = Schedule("s", "a", every_minutes=7)
        found = list(islice(fires_after(schedule, datetime(2026, 1, 1, tzinfo=UTC)), 3))
        assert all(planned.timestamp() % (7 * 60) == 0 for planned in found)
        assert found[1] - found[0] == 7 * MINUTE

    def test_a_fire_is_later_than_the_moment_that_was_given(self) -> None:
        schedule = Schedule("s", "a", every_minutes=1)
        noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
        assert next(fires_after(schedule, noon)) == noon + MINUTE
        assert next(fires_after(schedule, noon - timedelta(microseconds=1))) == noon


class TestCron:
    def test_is_read_in_the_schedules_own_zone(self) -> None:
        assert first(cron("0 9 * * *", "America/New_York"), "2026-03-07T20:00", 2) == [
            "2026-03-08 09:00-04:00",  # the day on which clocks go forward
            "2026-03-09 09:00-04:00",
        ]

    def test_days_of_month_and_week_as_in_debian(self) -> None:
        """Either field restricted: it alone decides; both: one of them is enough."""
        assert first(cron("0 9 13 * 5", "UTC"), "2026-11-01T00:00", 3) == [
            "2026-11-06 09:00+00:00",
            "2026-11-13 09:00+00:00",
            "2026-11-20 09:00+00:00",
        ]
        assert first(cron("0 9 13 * *", "UTC"), "2026-11-01T00:00", 1) == ["2026-11-13 09:00+00:00"]

    def test_leap_days_come(self) -> None:
        assert first(cron("0 0 29 2 *", "UTC"), "2026-01-01T00:00", 1) == ["2028-02-29 00:00+00:00"]


class TestClockChanges:
    def test_a_time_that_does_not_exist_fires_at_the_first_valid_moment(self) -> None:
        assert first(cron("30 2 * * *", "America/New_York"), "2026-03-07T12:00", 2) == [
            "2026-03-08 03:00-04:00",
            "2026-03-09 02:30-04:00",
        ]

    def test_two_such_times_are_one_fire(self) -> None:
        assert first(cron("0,30 2 * * *", "America/New_York"), "2026-03-08T00:00", 2) == [
            "2026-03-08 03:00-04:00",
            "2026-03-09 02:00-04:00",
        ]

    def test_a_time_that_occurs_twice_fires_at_the_first(self) -> None:
        assert first(cron("30 1 * * *", "America/New_York"), "2026-11-01T00:00", 2) == [
            "2026-11-01 01:30-04:00",
            "2026-11-02 01:30-05:00",
        ]

    def test_a_beat_that_looks_in_the_second_pass_does_not_fire_again(self) -> None:
        second_pass = "2026-11-01T06:10"  # 01:10 -05:00
        assert first(cron("30 1 * * *", "America/New_York"), second_pass, 1) == [
            "2026-11-02 01:30-05:00"
        ]

    def test_a_star_fires_in_both_passes(self) -> None:
        assert first(cron("*/30 1 * * *", "America/New_York"), "2026-11-01T04:00", 5) == [
            "2026-11-01 01:00-04:00",
            "2026-11-01 01:30-04:00",
            "2026-11-01 01:00-05:00",
            "2026-11-01 01:30-05:00",
            "2026-11-02 01:00-05:00",
        ]

    def test_a_star_fires_at_no_time_that_does_not_exist(self) -> None:
        assert first(cron("*/30 0 * * 5", "Africa/Cairo"), "2026-04-23T12:00", 1) == [
            "2026-05-01 00:00+03:00"  # clocks went from 00:00 to 01:00 on Friday the 24th of April
        ]

    def test_a_shift_of_half_an_hour(self) -> None:
        """Lord Howe Island goes back from 02:00 to 01:30; libraries step by the hour there."""
        assert first(cron("*/15 2 * * *", "Australia/Lord_Howe"), "2026-04-04T12:00", 2) == [
            "2026-04-05 02:00+10:30",
            "2026-04-05 02:15+10:30",
        ]


class TestLatestFires:
    def test_are_the_last_of_a_long_time(self) -> None:
        until = datetime(2026, 1, 1, 12, tzinfo=UTC)
        found = latest_fires(Schedule("s", "a", every_minutes=1), until - 30 * DAY, until, 1000)
        assert (len(found), found[-1]) == (1000, until)
        assert found[0] == until - 999 * MINUTE

    def test_are_all_of_a_short_time(self) -> None:
        until = datetime(2026, 1, 1, 12, tzinfo=UTC)
        schedule = cron("0 9 * * *", "UTC")
        assert len(latest_fires(schedule, until - 10 * DAY, until, 1000)) == 10
        assert len(latest_fires(schedule, until - 10 * DAY, until, 3)) == 3
        assert latest_fires(schedule, until, until, 1000) == []


# Every zone's transitions, against a look at each minute around them

SPAN = timedelta(hours=3)

#: cron -> the minutes, hours and weekdays (0: Sunday) that it means; some begin with `*`
CRONS = {
    "0 0 * * *": ({0}, {0}, range(7)),
    "0,30 2 * * *": ({0, 30}, {2}, range(7)),
    "30 1 * * *": ({30}, {1}, range(7)),
    "5 0-3 * * *": ({5}, {0, 1, 2, 3}, range(7)),
    "15,59 23 * * *": ({15, 59}, {23}, range(7)),
    "10 0,1,22 * * 0": ({10}, {0, 1, 22}, [0]),
    "*/15 * * * *": ({0, 15, 30, 45}, range(24), range(7)),
    "*/20 0,2 * * *": ({0, 20, 40}, {0, 2}, range(7)),
    "30 */2 * * 5": ({30}, range(0, 24, 2), [5]),
}


class Change(NamedTuple):
    """One change of the clocks, and what they show around it."""

    zone: str
    at: datetime
    minutes: list[tuple[datetime, datetime]]  # (UTC, local) from `SPAN` before to `SPAN` after


def changes() -> Iterator[Change]:
    """All changes in `YEARS`, one zone of each set that has them in common."""
    seen = set()
    for name in sorted(available_timezones()):
        zone = ZoneInfo(name)
        for at in transitions(zone):
            change = Change(name, at, minutes_around(zone, at))
            key = (at, *change.minutes[0], *change.minutes[-1])
            if key not in seen:
                seen.add(key)
                yield change


def transitions(zone: ZoneInfo) -> Iterator[datetime]:
    low, end = YEARS
    while low < end:
        high = low + 10 * DAY
        if low.astimezone(zone).utcoffset() != high.astimezone(zone).utcoffset():
            yield bisected(zone, low, high)
        low = high


def bisected(zone: ZoneInfo, low: datetime, high: datetime) -> datetime:
    """The first minute with the offset of ``high``."""
    while high - low > MINUTE:
        middle = low + (high - low) // 2 // MINUTE * MINUTE
        same = middle.astimezone(zone).utcoffset() == low.astimezone(zone).utcoffset()
        low, high = (middle, high) if same else (low, middle)
    return high


def minutes_around(zone: ZoneInfo, at: datetime) -> list[tuple[datetime, datetime]]:
    shown = [at - SPAN + index * MINUTE for index in range(2 * SPAN // MINUTE + 1)]
    return [(utc, utc.astimezone(zone).replace(tzinfo=None, fold=0)) for utc in shown]


def expected(text: str, change: Change) -> list[datetime]:
    """The fires among the minutes of a change, by the three rules of the documentation."""
    minutes, hours, weekdays = CRONS[text]

    def matches(local: datetime) -> bool:
        return (
            local.minute in minutes and local.hour in hours and local.isoweekday() % 7 in weekdays
        )

    if "*" in text.partition(" ")[0] + text.split()[1]:
        return [utc for utc, local in change.minutes if matches(local)]
    clock: dict[datetime, datetime] = {}
    for utc, local in change.minutes:
        clock.setdefault(local, utc)
    fires = set()
    local, last = min(clock), max(clock)
    while local <= last:
        if matches(local):
            fires.add(clock.get(local) or next(utc for utc, at in change.minutes if at > local))
        local += MINUTE
    return sorted(fires)


def test_every_change_of_every_zones_clocks() -> None:
    """The rules, at all transitions from 2020 to 2035 of all zones."""
    count = 0
    for change in changes():
        count += 1
        start, end = change.minutes[0][0], change.minutes[-1][0]
        for text in CRONS:
            found = latest_fires(cron(text, change.zone), start - MINUTE, end, 1000)
            assert found == expected(text, change), (text, change.zone, change.at)
    assert count > 500


@given(
    minutes=st.integers(0, 16 * 365 * 24 * 60),
    text=st.sampled_from(sorted(CRONS)),
    zone=st.sampled_from(["America/New_York", "Australia/Lord_Howe", "Antarctica/Troll", "UTC"]),
)
@settings(max_examples=100, deadline=None)
def test_wherever_a_beat_begins_to_look_it_plans_the_same_fires(
    minutes: int, text: str, zone: str
) -> None:
    schedule, start = cron(text, zone), YEARS[0] + minutes * MINUTE
    one_go = list(islice(fires_after(schedule, start), 5))
    in_steps = [start]
    for _ in one_go:
        in_steps.append(next(fires_after(schedule, in_steps[-1])))
    assert in_steps[1:] == one_go
