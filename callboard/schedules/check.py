"""The check of ``SCHEDULES`` at start: every entry is right, or the process does not start."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSimError

from callboard import strict_json
from callboard.errors import ConfigurationError, InvalidParams
from callboard.schedules.timing import fires_after
from callboard.sdk.action import Action
from callboard.sdk.schedule import Schedule
from callboard.sdk.unknown import unknown_action

__all__ = ["check_schedules", "timing_mistakes"]

MAX_CRON = 1_000  # characters
MAX_MINUTES = 10_080  # a week
CATCH_UP = ("none", "last", "all")
OVERLAP = ("skip", "allow")

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")


def check_schedules(
    schedules: Iterable[Schedule], actions: Mapping[str, Action], where: str
) -> None:
    """Raise `ConfigurationError` with every mistake in what stands in ``SCHEDULES``.

    ``actions``: those of the application, by name. ``where``: the file that declares the schedules.
    """
    seen: set[str] = set()
    mistakes = []
    for index, entry in enumerate(schedules):
        if not isinstance(entry, Schedule):
            mistakes.append(f"SCHEDULES[{index}]: must be a Schedule(...), not {entry!r:.80}")
            continue
        mistakes += [f"SCHEDULES[{index}] {entry.name!r}: {m}" for m in _mistakes(actions, entry)]
        if entry.name in seen:
            mistakes.append(f"SCHEDULES[{index}]: the name {entry.name!r} is taken")
        seen.add(str(entry.name))
    if mistakes:
        raise ConfigurationError("\n".join(f"{where}: {mistake}" for mistake in mistakes))


def _mistakes(actions: Mapping[str, Action], entry: Schedule) -> Iterator[str]:
    if not isinstance(entry.name, str) or not _NAME.fullmatch(entry.name):
        yield "a name is a letter, then up to 63 letters, digits, _ or -"
    yield from timing_mistakes(entry)
    yield from _action_mistakes(actions, entry)
    if not isinstance(entry.paused, bool):
        yield f"paused must be True or False, not {entry.paused!r}"
    yield from option_mistakes(entry)


def option_mistakes(entry: Schedule, catch_up: Sequence[str] = CATCH_UP) -> Iterator[str]:
    """What is wrong with its options; ``catch_up``: what that may be."""
    if entry.catch_up not in catch_up:
        yield f"catch_up must be one of {', '.join(catch_up)}, not {entry.catch_up!r:.80}"
    if entry.overlap not in OVERLAP:
        yield f"overlap must be one of {', '.join(OVERLAP)}, not {entry.overlap!r:.80}"


def timing_mistakes(entry: Schedule) -> Iterator[str]:
    """What is wrong with when it fires."""
    if (entry.every_minutes is None) == (entry.cron is None):
        both = "neither" if entry.cron is None else "both"
        yield f"give either every_minutes, or cron and timezone ({both} given)"
    elif entry.cron is not None:
        yield from _cron_mistakes(entry)
    else:
        minutes = entry.every_minutes
        if not isinstance(minutes, int) or isinstance(minutes, bool):
            yield f"every_minutes must be a whole number, not {minutes!r}"
        elif not 1 <= minutes <= MAX_MINUTES:
            yield f"every_minutes must be 1..{MAX_MINUTES}, not {minutes}"
        if entry.timezone is not None:
            yield "timezone goes with cron: every_minutes counts from the epoch"


def _cron_mistakes(entry: Schedule) -> Iterator[str]:
    if not isinstance(entry.cron, str) or len(entry.cron.split()) != 5:
        yield (
            f"cron {entry.cron!r:.80}: write 5 fields, minute hour day-of-month month day-of-week, "
            f"such as '0 9 * * 1-5'"
        )
        return
    if len(entry.cron) > MAX_CRON:
        yield f"cron has {len(entry.cron):,} characters, at most {MAX_CRON:,} are taken"
        return
    if (mistake := _zone_mistake(entry.timezone)) is not None:
        yield mistake
        return
    try:
        planned = next(fires_after(entry, datetime.now(UTC)), None)
    except CronSimError as error:
        yield f"cron {entry.cron!r}: {error}"
        return
    if planned is None:
        yield f"cron {entry.cron!r} matches no day of the next 50 years"


def _zone_mistake(zone: object) -> str | None:
    if zone is None:
        return "cron needs a timezone, such as timezone='Europe/Berlin' or 'UTC'"
    try:
        ZoneInfo(zone)  # type: ignore[arg-type]  # what is no text raises, too
    except (KeyError, ValueError, OSError, TypeError):
        near = difflib.get_close_matches(str(zone)[:80], available_timezones(), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        return f"unknown timezone {zone!r:.80}: give an IANA name, such as 'Europe/Berlin'.{hint}"
    return None


def _action_mistakes(actions: Mapping[str, Action], entry: Schedule) -> Iterator[str]:
    if not isinstance(entry.action, str):
        yield f"action must be the name of an action, not {entry.action!r:.80}"
        return
    action = actions.get(entry.action)
    if action is None:
        yield str(unknown_action(entry.action, actions))
        return
    if not isinstance(entry.params, Mapping):
        yield f"params must be a dict, not {entry.params!r:.80}"
        return
    try:
        strict_json.loads(json.dumps(dict(entry.params)))
        action.validate(entry.params)
    except (TypeError, ValueError, RecursionError) as error:
        yield f"params are no JSON object: {error}"
    except InvalidParams as error:
        yield f"{error} (params of {entry.action!r})"
