"""The counters that all processes share, in the hash ``<namespace>:counters``.

An ended run counts when the history has it, in the script that takes it off the list of ended
runs (`callboard.runs.ended`): once, whatever dies around it, and off the path of a call. Fields:
``runs:<action>:<status>``, and for the times ``run`` (first start to end) and ``wait`` (enqueued
to first start) ``<time>:<action>:<upper bound, ms>``, each run in one, and
``<time>:<action>:sum`` (ms). `callboard.runs.store` counts what is rare as it happens:
``retries:<action>``, ``lost:<action>`` and ``refused``, and ``late``, the time from the planned
time of a schedule's fire to its first start, by schedule in the place of the action.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import redis

from callboard.connections.keys import Keys
from callboard.connections.redis import guarded, of_type
from callboard.runs.scripts import script

__all__ = ["BOUNDS", "Counts", "Times", "observation", "read_counts"]

BOUNDS = (5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000)
"""Upper bounds of the times that are counted together, in milliseconds; then infinity."""

MOST_KEYS = 1000  # of limits, whose waiting runs are counted

PerAction = Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """How long something took, over all runs of an action, or all fires of a schedule."""

    counts: tuple[int, ...]  # one per bound, and one beyond them
    sum: int  # milliseconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """All counters at one moment."""

    runs: Mapping[tuple[str, str], int]  # by action and status: runs that ended
    run: Mapping[str, Times]  # by action
    wait: Mapping[str, Times]  # by action
    late: Mapping[str, Times]  # by schedule
    retries: PerAction
    lost: PerAction  # workers that died with a run of this action
    refused: int  # messages
    queued: Mapping[str, int]  # by queue: messages that no worker has taken
    open: int  # runs that are queued or running, or wait for other runs
    waiting: int  # runs that wait for their time, a signal or a slot, and are known to Redis
    slot: PerAction  # those that wait for a slot, in the first MOST_KEYS keys of limits
    ended: int  # runs that the history has yet to take


def observation(what: str, name: str, ms: int) -> Mapping[str, int]:
    """The fields that grow, and by how much, when something took ``ms`` milliseconds."""
    bound = next((str(bound) for bound in BOUNDS if ms <= bound), "Inf")
    return {f"{what}:{name}:{bound}": 1, f"{what}:{name}:sum": ms}


def read_counts(client: redis.Redis, keys: Keys, queues: Iterable[str]) -> Counts:
    """Read them; raises `BrokerUnavailable`."""
    names = list(queues)
    with guarded():
        pipeline = client.pipeline(transaction=False)
        pipeline.hgetall(keys.counters)
        pipeline.zcard(keys.open)
        pipeline.zcard(keys.due)
        pipeline.eval(script("lines", **keys.constants()), 0, str(MOST_KEYS))
        pipeline.llen(keys.ended)
        for name in names:
            pipeline.llen(keys.queue(name))
        answers = pipeline.execute(raise_on_error=False)
        fields, open_runs, waiting, found, ended, *depths = [
            of_type(answer) or 0 for answer in answers
        ]
    lines = cast("list[Any]", found or [])
    counted = _Counted(cast("dict[bytes, bytes]", fields or {}))
    return Counts(
        runs={(action, status): n for (action, status), n in counted.pairs("runs")},
        run=counted.times("run"),
        wait=counted.times("wait"),
        late=counted.times("late"),
        retries=counted.per_action("retries"),
        lost=counted.per_action("lost"),
        refused=sum(counted.kinds["refused"].values()),
        queued=dict(zip(names, depths, strict=True)),
        open=open_runs,
        waiting=waiting,
        slot=dict(zip(map(_text, lines[::2]), lines[1::2], strict=True)),
        ended=ended,
    )


def _text(name: bytes) -> str:
    return name.decode(errors="replace")


class _Counted:
    """The fields of the hash by what they count."""

    def __init__(self, fields: Mapping[bytes, bytes]) -> None:
        self.kinds: dict[str, dict[str, int]] = defaultdict(dict)
        for field, value in fields.items():
            kind, _, rest = _text(field).partition(":")
            if value.isdigit() and len(value) < 19:  # as Redis counts: it alone adds to them
                self.kinds[kind][rest] = int(value)

    def per_action(self, kind: str) -> PerAction:
        return self.kinds[kind]

    def pairs(self, kind: str) -> Iterable[tuple[tuple[str, str], int]]:
        for rest, value in self.kinds[kind].items():
            action, _, detail = rest.rpartition(":")
            yield (action, detail), value

    def times(self, kind: str) -> Mapping[str, Times]:
        details: dict[str, dict[str, int]] = defaultdict(dict)
        for (action, detail), value in self.pairs(kind):
            details[action][detail] = value
        bounds = [*map(str, BOUNDS), "Inf"]
        return {
            action: Times(
                counts=tuple(found.get(bound, 0) for bound in bounds), sum=found.get("sum", 0)
            )
            for action, found in details.items()
        }
