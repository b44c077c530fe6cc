"""The fires of stored schedules: what is due is planned and published, many at a time.

As a beat does it with declared ones (`worker.schedules.beat`), except that nothing is done for
what is not due, and that a row is looked at again only when its run should have ended: a worker
closes it long before.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import structlog

from callboard.clock import OFF_SECONDS
from callboard.errors import QueueFull, RunRefused
from callboard.runs.seal import CALL_LIFETIME
from callboard.runs.start import Start
from callboard.runs.store import Runs
from callboard.schedules.enqueue import LOOK
from callboard.schedules.fires import Fire, Fires
from callboard.schedules.state import Schedules
from callboard.schedules.stored import STORED, Stored, StoredSchedules
from callboard.schedules.timing import latest_fires

from .planning import plan_fires

if TYPE_CHECKING:
    from ..services import Services

__all__ = ["StoredFires"]

AT_ONCE = 100  # schedules, or rows, in one turn: declared schedules wait for no more
MOST_MISSED = 10  # fires of one schedule that are noted as missed, the latest
KEPT = 100  # rows of one schedule
AGAIN = timedelta(seconds=60)  # between two looks at a row whose run goes on
UNREADABLE = timedelta(hours=1)  # until one is looked at again that no key opens
SOON = timedelta(seconds=1)  # the longest that a beat is idle
WENT_BACK = timedelta(seconds=OFF_SECONDS)

Planned = tuple[Stored, Fire]

_log = structlog.get_logger("callboard.beat")


class StoredFires:
    """Those of one beat. ``settled``: closes a fire whose run has ended, and answers how another
    stands (`Beat`)."""

    def __init__(
        self,
        services: Services,
        runs: Runs,
        fires: Fires,
        settled: Callable[[Fire], Fire | None],
    ) -> None:
        self._services = services
        self._runs = runs
        self._fires = fires
        self._settled = settled
        self._stored = StoredSchedules(services.store.database, services.sealer)
        self._states = Schedules(services.store.database, STORED)
        self._full_until: datetime | None = None
        self._latest: datetime | None = (
            None  # that a turn has seen: later than now if clocks go back
        )

    def prepare(self) -> None:
        """Make the indexes."""
        self._stored.prepare()

    def turn(self, now: datetime) -> datetime | None:
        """Do what is due; when the next is, if soon. Raises as `Beat.turn`."""
        if self._latest is None or now + WENT_BACK < self._latest:
            self._go_back(now)
        self._latest = now
        self._look(now)
        if self._full_until and now < self._full_until:
            return self._full_until
        self._full_until = None
        if self._plan(now):
            return now  # there are more
        return self._full_until or self._stored.next_fire(now, now + SOON)

    # Rows that are there

    def _look(self, now: datetime) -> None:
        """At rows whose run should be there, or should have ended."""
        left = self._fires.left(now, AT_ONCE)
        going = [fire for fire in map(self._settled, left) if fire is not None]
        waiting = [fire for fire in going if not fire.published]
        known = self._stored.named({fire.schedule for fire in waiting})
        entries = {name: self._stored.opened(row) for name, row in known.items()}
        ready = []
        for fire in waiting:
            if entry := entries.get(fire.schedule):
                ready.append((entry, fire))
            else:  # removed meanwhile, or unreadable
                self._fires.close(fire.run_id, "canceled", completed=now, attempts=0)
        published = self._publish(ready, now)
        later = {fire.run_id for fire in going} - {fire.run_id for fire in waiting} | published
        self._fires.look_again(later, now + AGAIN)
        full = {fire.run_id for _, fire in ready} - published
        self._fires.look_again(full, now + LOOK)

    def _go_back(self, now: datetime) -> None:
        """Should the database's clock go back, the schedules go back with it."""
        while ahead := self._stored.ahead(now + WENT_BACK, AT_ONCE):
            entries = list(filter(None, map(self._stored.opened, ahead)))
            for entry in entries:
                self._states.go_back(entry.schedule, entry.state, now)
            if not entries:
                return

    # What is due

    def _plan(self, now: datetime) -> bool:
        """Plan and publish what is due; whether there is more."""
        due = self._stored.due(now, AT_ONCE)
        entries = self._readable(due, now)
        busy = self._fires.busy([entry.schedule.name for entry in entries])
        plans = [
            (entry, self._fires_of(entry, entry.schedule.name in busy, now)) for entry in entries
        ]
        fresh = {one.run_id for one in self._fires.insert_new([f for _, fs in plans for f in fs])}
        self._stored.advance(plans, now)
        self._publish(
            [
                (entry, fire)
                for entry, fires in plans
                for fire in fires
                if fire.outcome is None and fire.run_id in fresh
            ],
            now,
        )
        self._prune(plans)
        return len(due) == AT_ONCE and self._full_until is None

    def _readable(self, due: Sequence[dict[str, object]], now: datetime) -> list[Stored]:
        """Those that can fire; others are told of, and put off."""
        entries, faulty = [], []
        for row in due:
            entry = self._stored.opened(row)
            why = self._fault(entry)
            if entry and why is None:
                entries.append(entry)
            else:
                _log.error("a stored schedule does not fire", schedule=row["_id"], why=why)
                faulty.append(row)
        self._stored.put_off(faulty, now + UNREADABLE)
        return entries

    def _fault(self, entry: Stored | None) -> str | None:
        if entry is None:
            return "no key of SECRET_KEY opens it, or its row was altered"
        registry = self._services.registry
        if any(schedule.name == entry.schedule.name for schedule in registry.schedules):
            return "SCHEDULES has one of its name"
        return None if entry.schedule.action in registry.actions else "its action is gone"

    def _fires_of(self, entry: Stored, busy: bool, now: datetime) -> list[Fire]:
        schedule, state = entry.schedule, entry.state
        passed = latest_fires(schedule, state.through, now, MOST_MISSED)
        due = [planned for planned in passed if state.fires_at(planned)]
        look_at = now + LOOK  # then one that was not published, in spite of its row, is
        return [
            replace(
                fire,
                published=now if fire.outcome is None else None,
                action=schedule.action,
                look_at=look_at,
            )
            for fire in plan_fires(schedule, due, now, busy=busy)
        ]

    def _publish(self, ready: Sequence[Planned], now: datetime) -> set[str]:
        """Have the runs of these queued; those that are."""
        starts = [self._start(entry, fire, now) for entry, fire in ready]
        if not starts:
            return set()
        limits = self._services.settings.of_accepting
        answers = zip(starts, self._runs.accept_many(starts, **limits), strict=True)
        refused = {start.run_id: said for start, said in answers if isinstance(said, RunRefused)}
        if full := next((said for said in refused.values() if isinstance(said, QueueFull)), None):
            self._full_until = now + LOOK
            _log.warning("fires wait", fires=len(refused), why=str(full))
        published = {start.run_id for start in starts} - refused.keys()
        return published

    def _start(self, entry: Stored, fire: Fire, now: datetime) -> Start:
        call = replace(
            entry.call,
            expires=now.timestamp() + CALL_LIFETIME,
            acceptance=uuid.uuid4().hex,
        )
        action = self._services.registry.get(entry.schedule.action)
        return Start(run_id=fire.run_id, action=action, call=call)

    def _prune(self, plans: Sequence[tuple[Stored, Sequence[Fire]]]) -> None:
        """Now and then, delete what is beyond the rows that are kept of a schedule."""
        for entry, fires in plans:
            if any(int(fire.planned.timestamp()) // 60 % KEPT == 0 for fire in fires):
                self._fires.prune(entry.schedule.name, KEPT)
