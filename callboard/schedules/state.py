"""What is remembered of each schedule: one document per entry, in the collection ``_schedules``.

Fields: ``_id`` (the name), ``timing`` and ``declaredPaused`` (as the code said when a beat last
started), ``firstSeen``, ``through`` (every fire up to then is planned), ``lastFire``,
``nextFire``, and ``pauses``: the times without fires, as ``{"from", "to"}``; the last one's
``to`` is null while the schedule is paused. ``nextFire`` is for people: a beat works out for itself
what comes next, because clocks and the rules of zones change.

Every ``now`` is the database's (`callboard.clock`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from callboard.connections.mongodb import guarded
from callboard.schedules.fires import FIRES, Fire, insert_new
from callboard.schedules.timing import fires_after
from callboard.sdk.schedule import Schedule

__all__ = [
    "SCHEDULES",
    "Schedules",
    "State",
    "begin_pause",
    "end_pause",
    "planned",
    "timing",
]

SCHEDULES = "_schedules"
PLAN_SECONDS = 10.0  # a plan may hold a thousand rows

_OPEN_PAUSE = {"$elemMatch": {"to": None}}

Document = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Where a schedule stands. Times are UTC."""

    through: datetime  # every fire up to then is planned
    last_fire: datetime | None
    pauses: tuple[tuple[datetime, datetime | None], ...] = ()

    @property
    def paused(self) -> bool:
        """Whether it fires at all for now."""
        return bool(self.pauses) and self.pauses[-1][1] is None

    @property
    def latest(self) -> datetime:
        """The latest time that it knows of: never later than now, but for clocks that went back."""
        ends = [moment for pause in self.pauses for moment in pause if moment is not None]
        return max([self.through, *ends])

    def fires_at(self, planned: datetime) -> bool:
        """Whether a planned time is outside every pause."""
        return not any(
            start < planned and (end is None or planned <= end) for start, end in self.pauses
        )

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> State:
        """From its document."""
        return cls(
            through=document["through"],
            last_fire=document.get("lastFire"),
            pauses=tuple((pause["from"], pause["to"]) for pause in document["pauses"]),
        )


class Schedules:
    """The states of one application. Every method raises `DatabaseUnavailable`."""

    def __init__(
        self, database: Callable[[], Database[Document]], collection: str = SCHEDULES
    ) -> None:
        self._database = database
        self._collection = collection

    def states(self) -> dict[str, State]:
        """By name."""
        with guarded():
            found = self._database()[self._collection].find()
            return {document["_id"]: State.of(document) for document in found}

    def adopt(self, schedules: Iterable[Schedule], now: datetime) -> None:
        """Take over what the code says: new entries, changed ones, and those that are gone.

        A changed timing counts from now. A changed ``paused`` pauses or resumes.
        """
        declared = {schedule.name: schedule for schedule in schedules}
        with guarded():
            states = self._database()[self._collection]
            states.delete_many({"_id": {"$nin": list(declared)}})
            known = {document["_id"]: document for document in states.find()}
        for name, schedule in declared.items():
            if name not in known:
                self.remember(schedule, now)
            else:
                self._update(schedule, known[name], now)

    def remember(self, schedule: Schedule, now: datetime) -> None:
        """See an entry for the first time; one that is known stays as it is."""
        document = {
            "_id": schedule.name,
            "firstSeen": now,
            "lastFire": None,
            "pauses": [{"from": now, "to": None}] if schedule.paused else [],
            "declaredPaused": schedule.paused,
            **timing(schedule, now),
        }
        with guarded():
            try:
                self._database()[self._collection].insert_one(document)
            except DuplicateKeyError:
                return

    def _update(self, schedule: Schedule, known: Document, now: datetime) -> None:
        if known["timing"] != schedule.timing:
            changed = {"firstSeen": now, **timing(schedule, now)}
            self._set(schedule.name, {"timing": known["timing"]}, changed)
        if known["declaredPaused"] != schedule.paused:
            self._set(schedule.name, {}, {"declaredPaused": schedule.paused})
            (self.pause if schedule.paused else self.resume)(schedule, now)

    def _set(self, name: str, wanted: Document, values: Document) -> None:
        with guarded():
            self._database()[self._collection].update_one({"_id": name, **wanted}, {"$set": values})

    def pause(self, schedule: Schedule, now: datetime) -> None:
        """Fire no more until `resume`; a paused schedule stays so."""
        self.remember(schedule, now)
        begin_pause(self._database()[self._collection], schedule.name, now)

    def resume(self, schedule: Schedule, now: datetime) -> None:
        """Fire again from now on; what was planned for the pause stays out."""
        self.remember(schedule, now)
        end_pause(self._database()[self._collection], schedule.name, now)

    def plan(
        self, schedule: Schedule, state: State, fires: Sequence[Fire], now: datetime
    ) -> list[Fire]:
        """Insert the rows of the fires up to ``now``, then count them as planned.

        ``state``: what the plan was made from. Returns the rows that were inserted here: those of
        fires that have one stay, and are whoever's who inserted them. A beat that dies in between
        leaves rows that the next plan finds, and no transaction that holds others up.
        """
        with guarded(PLAN_SECONDS):
            database = self._database()
            unchanged = {"_id": schedule.name, "through": state.through}
            if database[self._collection].find_one(unchanged, {"_id": True}) is None:
                return []  # another beat was faster
            ids = [fire.run_id for fire in fires]
            there = database[FIRES].find({"_id": {"$in": ids}}, {"_id": True})
            known = {document["_id"] for document in there}
            new = insert_new(database[FIRES], [fire for fire in fires if fire.run_id not in known])
            database[self._collection].update_one(unchanged, planned(schedule, fires, now))
        return new

    def go_back(self, schedule: Schedule, state: State, now: datetime) -> None:
        """Forget what a clock that was ahead has planned: nothing later than ``now`` is.

        The rows of fires to come are deleted, unless they have had a run.
        """
        ahead = {"schedule": schedule.name, "plannedAt": {"$gt": now}, "manual": False}
        with guarded(PLAN_SECONDS):
            database = self._database()
            database[FIRES].delete_many({**ahead, "publishedAt": {"$exists": False}})
            before = {"schedule": schedule.name, "plannedAt": {"$lte": now}, "manual": False}
            last = database[FIRES].find_one(before, sort=[("plannedAt", -1)])
            values = {
                **_planned_up_to(schedule, min(state.through, now)),
                "lastFire": last and last["plannedAt"],
            }
            earlier = {"pauses.$[].from": now, "pauses.$[].to": now}
            database[self._collection].update_one(
                {"_id": schedule.name, "through": state.through}, {"$set": values, "$min": earlier}
            )


def begin_pause(states: Collection[Document], name: str, now: datetime) -> None:
    """The schedule fires no more until `end_pause`; a paused one stays so."""
    with guarded():
        states.update_one(
            {"_id": name, "pauses": {"$not": _OPEN_PAUSE}},
            {"$push": {"pauses": {"from": now, "to": None}}},
        )


def end_pause(states: Collection[Document], name: str, now: datetime) -> None:
    """It fires again from now on; what was planned for the pause stays out."""
    with guarded():
        states.update_one({"_id": name, "pauses": _OPEN_PAUSE}, {"$set": {"pauses.$.to": now}})


def timing(schedule: Schedule, now: datetime) -> Document:
    """What a state says of a schedule that fires from ``now`` on."""
    return {"timing": schedule.timing, **_planned_up_to(schedule, now)}


def _planned_up_to(schedule: Schedule, moment: datetime) -> Document:
    return {"through": moment, "nextFire": next(fires_after(schedule, moment))}


def planned(schedule: Schedule, fires: Sequence[Fire], now: datetime) -> Document:
    """The change of a state whose fires up to ``now`` are planned."""
    values = _planned_up_to(schedule, now)
    if fires:
        values["lastFire"] = fires[-1].planned
    return {"$set": values, "$pull": {"pauses": {"to": {"$lte": now}}}}
