"""The checks of what runs have started: a committed parent has exactly its children, each once.

A child leaves a record under an id of its own in its transaction: a second run of it would leave a
second one. A join leaves one with the ends of all the runs that it has waited for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

from pymongo.database import Database

from callboard.runs.outbox import OUTBOX
from chaos.app.starting import DECLINED, Guest
from chaos.findings import Finding, doubled, lost
from chaos.load import Call

__all__ = ["check_groups", "check_orders", "check_outbox", "check_started"]

Ends = Sequence[Sequence[Any]]


def check_started(database: Database[dict[str, Any]], calls: Sequence[Call]) -> Iterator[Finding]:
    """What the database holds of parents, children and joins."""
    orders, packages = (
        Counter(row["data"]["key"] for row in database[name].find())
        for name in ("orders", "packages")
    )
    yield from check_orders(orders, packages, {call.key for call in calls if call.refused})
    sizes = {row["data"]["key"]: row["data"]["guests"] for row in database["invitations"].find()}
    guests = Counter(
        (row["data"]["key"], row["data"]["number"]) for row in database["guests"].find()
    )
    counts: dict[str, list[Ends]] = {}
    for row in database["counts"].find():
        counts.setdefault(row["data"]["key"], []).append(row["data"]["ends"])
    yield from check_groups(sizes, guests, counts)


def check_outbox(database: Database[dict[str, Any]]) -> Iterator[Finding]:
    """Nothing that was committed still waits to be published."""
    for row in database[OUTBOX].find():
        yield lost(f"run {row['_id']} of {row['action']} is in the outbox, for {row.get('next')}")


def check_orders(
    orders: Mapping[str, int], packages: Mapping[str, int], refused: Set[str]
) -> Iterator[Finding]:
    """Every order that was committed has one package; none that was rolled back has any.

    ``orders`` and ``packages``: how many there are under each call's key.
    """
    for key in orders:
        if not packages.get(key):
            yield lost(f"no child of the committed order {key}")
        if key in refused:
            yield doubled(f"an order that was rolled back is there: {key}")
    for key, count in packages.items():
        if count > 1:
            yield doubled(f"{count} children of the order {key}")
        if key not in orders:
            yield doubled(f"a child of no committed order: {key}")


def check_groups(
    sizes: Mapping[str, int],
    guests: Mapping[tuple[str, int], int],
    counts: Mapping[str, Sequence[Ends]],
) -> Iterator[Finding]:
    """Every group has run as it is, and its join once, with all ends.

    ``sizes``: runs of each group; ``guests``: records of each run of each group; ``counts``: for
    each group the ends that its joins had.
    """
    ends = {key: [_end(key, number) for number in range(size)] for key, size in sizes.items()}
    yield from _check_runs(ends, guests)
    for key, expected in ends.items():
        joins = counts.get(key, [])
        if not joins:
            yield lost(f"no join of the group {key}")
        if len(joins) > 1:
            yield doubled(f"{len(joins)} joins of the group {key}")
        for told in joins:
            if list(map(list, told)) != expected:
                yield lost(f"the join of the group {key} had {told}")
    for key in counts.keys() - sizes.keys():
        yield doubled(f"a join of no group: {key}")


def _check_runs(
    ends: Mapping[str, Ends], guests: Mapping[tuple[str, int], int]
) -> Iterator[Finding]:
    """A run that succeeds has one record, one that fails none."""
    succeeding = {
        (key, number)
        for key, expected in ends.items()
        for number, (status, _) in enumerate(expected)
        if status == "succeeded"
    }
    for key, number in succeeding - guests.keys():
        yield lost(f"no record of run {number} of the group {key}")
    for (key, number), count in guests.items():
        if count > 1:
            yield doubled(f"{count} records of run {number} of the group {key}")
        if (key, number) not in succeeding:
            yield doubled(f"a record of a run of no group, or rolled back: {number} of {key}")


def _end(key: str, number: int) -> list[Any]:
    declines = Guest(key=key, number=number).declines
    return ["failed", DECLINED] if declines else ["succeeded", number]
