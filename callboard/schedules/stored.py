"""Stored schedules: those that handlers have put (``ctx.schedules``), in ``_stored_schedules``.

Beside the declared ones (``SCHEDULES``), of which there are few, there may be one for each user. So
nobody reads all of them: an index on ``nextFire`` says what is due.

Fields: ``_id`` (the name), ``action``, ``call`` (sealed: caller, claims, params), ``everyMinutes``
or ``cron`` and ``timezone``, ``catchUp``, ``overlap``, and where it stands, as of a declared one
(`callboard.schedules.state`): ``timing``, ``firstSeen``, ``through``, ``lastFire``, ``nextFire``,
``pauses``.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pymongo import UpdateOne

from callboard.connections.mongodb import (
    AnySession,
    Document,
    guarded,
)
from callboard.errors import SealError
from callboard.runs.record import readable
from callboard.runs.rows import PlainRows, Rows, of_kind
from callboard.runs.seal import Call, Sealer
from callboard.sans_io import Steps, awaited, plain
from callboard.schedules.check import timing_mistakes
from callboard.schedules.fires import Fire
from callboard.schedules.state import State, begin_pause, end_pause, planned, timing
from callboard.sdk.schedule import Schedule

__all__ = [
    "STORED",
    "AsyncStoredSchedules",
    "Stored",
    "StoredSchedules",
    "is_stored_name",
    "schedule_of",
]

STORED = "_stored_schedules"
SECONDS = 10.0  # that the database may take for a batch

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:@|+=~-]{0,254}")


def is_stored_name(name: object) -> bool:
    """Whether it may be the name of one: what a user's id may hold, and a URL takes as it is."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One of them. The call is whom it runs as, and with what."""

    schedule: Schedule
    call: Call
    state: State


def schedule_of(document: Mapping[str, Any], params: Mapping[str, Any]) -> Schedule:
    """When it fires, and what."""
    return Schedule(
        str(document["_id"]),
        document["action"],
        every_minutes=document["everyMinutes"],
        cron=document["cron"],
        timezone=document["timezone"],
        params=params,
        catch_up=document["catchUp"],
        overlap=document["overlap"],
    )


def _definition(schedule: Schedule, call: Call, sealer: Sealer) -> Document:
    text = call.to_json()
    return {
        "action": schedule.action,
        "call": sealer.seal("schedule", schedule.name, schedule.action, text),
        "everyMinutes": schedule.every_minutes,
        "cron": schedule.cron,
        "timezone": schedule.timezone,
        "catchUp": schedule.catch_up,
        "overlap": schedule.overlap,
    }


def _require_usable(schedule: Schedule, state: State) -> None:
    """Raise ValueError for what nobody has put so, or what today's zones know no more."""
    for mistake in timing_mistakes(schedule):
        raise ValueError(mistake)
    moments = [state.through, state.last_fire, *itertools.chain(*state.pauses)]
    if state.through is None or not all(isinstance(one, datetime | None) for one in moments):
        raise ValueError("a time that is none")


class _Rows(Rows):
    """What handlers do with them, plain and async ones; what the database raises is theirs."""

    collection = STORED
    seconds = SECONDS

    def _put(
        self, schedule: Schedule, call: Call, now: datetime, session: AnySession
    ) -> Steps[None]:
        """Have this one. Another timing counts from ``now``; else only the call changes."""
        values = _definition(schedule, call, self._sealer)
        same = {"_id": schedule.name, "timing": schedule.timing}
        known = yield self._rows.update_one(same, {"$set": values}, session=session)
        if known.matched_count:
            return
        first: Document = {"lastFire": None, "pauses": []}
        change = {"$set": {**values, "firstSeen": now, **timing(schedule, now)}}
        yield self._rows.update_one(
            {"_id": schedule.name}, {**change, "$setOnInsert": first}, upsert=True, session=session
        )

    def _remove(self, name: str, session: AnySession) -> Steps[bool]:
        """Whether there was one."""
        removed = yield self._rows.delete_one({"_id": name}, session=session)
        return bool(removed.deleted_count)

    def _get(self, name: str, session: AnySession) -> Steps[Stored | None]:
        """The one of this name. Raises `SealError`."""
        found = yield self._rows.find_one({"_id": name}, session=session)
        return self.read(found) if found else None

    def read(self, document: Mapping[str, Any]) -> Stored:
        """From its document. Raises `SealError` for what no key opens."""
        call = self.call_of(document)
        with readable(str(document["_id"])):
            schedule, state = schedule_of(document, call.params), State.of(document)
            _require_usable(schedule, state)
            return Stored(schedule=schedule, call=call, state=state)

    def call_of(self, document: Mapping[str, Any]) -> Call:
        """Whom it runs as, and with what. Raises `SealError`."""
        name = str(document["_id"])
        with readable(name):
            sealed = of_kind(bytes, document["call"])
            return Call.from_json(self._sealer.open("schedule", name, document["action"], sealed))


class AsyncStoredSchedules(_Rows):
    """For an event loop."""

    put = awaited(_Rows._put)
    remove = awaited(_Rows._remove)
    get = awaited(_Rows._get)


class StoredSchedules(_Rows, PlainRows):
    """Those of one application. What is not a handler's raises `DatabaseUnavailable`."""

    put = plain(_Rows._put)
    remove = plain(_Rows._remove)
    get = plain(_Rows._get)

    def prepare(self) -> None:
        """Make the index; harmless if it is there."""
        with guarded(SECONDS):
            self._plain.create_index("nextFire")

    def due(self, now: datetime, limit: int) -> list[Document]:
        """Those whose next fire has come, in the order of the index."""
        with guarded(SECONDS):
            rows = self._plain.find({"nextFire": {"$lte": now}})
            return rows.limit(limit).to_list()

    def ahead(self, moment: datetime, limit: int) -> list[Document]:
        """Those that are planned further than ``moment``: a clock was ahead. Looks at all."""
        with guarded(SECONDS):
            rows = self._plain.find({"through": {"$gt": moment}})
            return rows.limit(limit).to_list()

    def next_fire(self, now: datetime, until: datetime) -> datetime | None:
        """The next one until then, which should be soon; None where there is none."""
        soon = {"nextFire": {"$gt": now, "$lte": until}}
        with guarded():
            first = self._plain.find_one(soon, {"nextFire": 1})
        return first["nextFire"] if first else None

    def named(self, names: Iterable[str]) -> dict[str, Document]:
        """Those of these names."""
        with guarded(SECONDS):
            rows = self._plain.find({"_id": {"$in": list(names)}})
            return {row["_id"]: row for row in rows}

    def opened(self, document: Mapping[str, Any]) -> Stored | None:
        """None for one that no key opens."""
        try:
            return self.read(document)
        except SealError:
            return None

    def advance(self, plans: Sequence[tuple[Stored, Sequence[Fire]]], now: datetime) -> None:
        """Count the fires up to ``now`` as planned."""
        changes = []
        for entry, fires in plans:
            unchanged = {"_id": entry.schedule.name, "through": entry.state.through}
            change = planned(entry.schedule, fires, now)
            changes.append(UpdateOne(unchanged, change))
        self._write(changes)

    def put_off(self, documents: Sequence[Document], until: datetime) -> None:
        """Look at these, which cannot fire, no earlier."""
        self._write(
            [
                UpdateOne(
                    {"_id": row["_id"], "through": row.get("through")},
                    {"$set": {"nextFire": until}},
                )
                for row in documents
            ]
        )

    def pause(self, name: str, now: datetime) -> None:
        """Fire no more until `resume`; a paused one stays so."""
        begin_pause(self._plain, name, now)

    def resume(self, name: str, now: datetime) -> None:
        """Fire again from now on; what was planned for the pause stays out."""
        end_pause(self._plain, name, now)

    def _write(self, changes: Sequence[UpdateOne]) -> None:
        if changes:
            with guarded(SECONDS):
                self._plain.bulk_write(list(changes), ordered=False)
