"""The beat: plans the fires of ``SCHEDULES`` and has each of them run once.

Any number of beats may turn at once, and any may die at any moment. A turn does three things,
each of which another beat can do as well, or again:

1. settle: close the fires whose runs have ended; see which runs Redis has forgotten.
2. plan: insert the rows of what is due. Of several beats, one does it.
3. publish: accept the runs of rows that have none. A row that its own beat has not marked as
   published after 5 s is anybody's; accepting a run twice is accepting it once.

What is due follows from the database's time (`callboard.clock`) and from up to when a schedule is
planned, by today's rules of its zone: this machine's clock may be wrong or jump, nothing is planned
ahead. Should the database's own clock go back, the schedules go back with it.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta

import structlog

from callboard.clock import OFF_SECONDS, Clock, ClockWatch, DatabaseClock
from callboard.connections import heartbeat
from callboard.errors import CallboardError, QueueFull, SealError
from callboard.runs.history import History
from callboard.runs.store import Runs
from callboard.schedules.enqueue import Publisher
from callboard.schedules.fires import KEPT_ROWS, Fire, Fires
from callboard.schedules.state import Schedules, State
from callboard.schedules.timing import fires_after, latest_fires
from callboard.sdk.schedule import Schedule
from callboard.times import from_milliseconds

from ..services import Services
from .planning import plan_fires
from .stored import StoredFires

__all__ = ["Beat"]

ALIVE_SECONDS = 5  # how long a sign of life is good for
TURN_SECONDS = 1.0
BACKLOG_SECONDS = 0.2  # between turns while fires wait for one another
LEFT_BEHIND = timedelta(seconds=5)  # a row that is not published by then is anybody's
WENT_BACK = timedelta(seconds=OFF_SECONDS)  # what is planned further ahead is no beat's of today

_log = structlog.get_logger("callboard.beat")


class Beat:
    """One beat. ``name``: what it is seen as; ``now``: the clock that fires go by, the database's
    unless told otherwise."""

    def __init__(
        self,
        services: Services,
        name: str,
        *,
        now: Clock | None = None,
    ) -> None:
        database = services.store.database
        self._now = now or DatabaseClock(database)
        self._watch = ClockWatch("database")
        self._failed = ""  # what the last turn ended with, if that was no outage
        self._sign = services.keys.beat + name
        self._registry = services.registry
        self._declared = {schedule.name: schedule for schedule in services.registry.schedules}
        self._redis = services.connect()
        self._runs = Runs(self._redis, services.sealer, services.keys)
        self._fires = Fires(database)
        self._schedules = Schedules(database)
        self._history = History(database, services.sealer)
        self._publisher = Publisher(services.settings, services.registry, self._runs, self._fires)
        self._stored = StoredFires(services, self._runs, self._fires, self._settled)
        self._planned: set[str] = set()  # run ids that this beat planned, and is to publish
        self._following: dict[str, tuple[datetime, datetime]] = {}  # by name: planned up to, next
        self._prepared = False

    def turn(self) -> float:
        """Do what is due; the seconds until the next turn.

        Raises `BrokerUnavailable` or `DatabaseUnavailable`; what was left undone is done by a
        later turn, of this beat or another.
        """
        self._show()
        try:
            seconds = self._turn()
        except CallboardError:
            raise
        except Exception as error:
            self._failed = type(error).__name__
            self._show()
            raise
        self._failed = ""
        return seconds

    def _show(self) -> None:
        """Show a sign of life; none while turns fail."""
        if self._failed:
            why = f"failed: {self._failed}"
            heartbeat.show_unready(self._redis, self._sign, why, ALIVE_SECONDS)
            return
        content = json.dumps({"ahead": round(self._now.ahead, 1)})
        heartbeat.show(self._redis, self._sign, content, ALIVE_SECONDS)

    def _turn(self) -> float:
        now = self._now()
        self._watch.note(self._now.ahead)
        if not self._prepared:
            self._fires.prepare()
            self._stored.prepare()
            self._schedules.adopt(self._declared.values(), now)
            self._prepared = True
        going = [fire for fire in map(self._settled, self._fires.open()) if fire is not None]
        self._planned &= {fire.run_id for fire in going if not fire.published}
        states = self._states(now)
        planned = self._plan(states, {fire.schedule for fire in going}, now)
        waiting = self._publish([*going, *planned], now)
        stored = self._stored.turn(now)
        if waiting:
            return BACKLOG_SECONDS
        following = [soonest for _, soonest in self._following.values()]
        soonest = min([*following, stored] if stored else following, default=None)
        until = (soonest - now).total_seconds() if soonest else TURN_SECONDS
        return min(max(until, 0.05), TURN_SECONDS)

    # Settle

    def _settled(self, fire: Fire) -> Fire | None:
        """The open fire as it stands: None once it is closed, unpublished if its run is gone."""
        if fire.published is None:
            return fire
        try:
            record = self._runs.read(fire.run_id)
        except SealError:
            _log.warning("the record of a fire does not open", run_id=fire.run_id)
            return fire
        run = record or self._history.find(fire.run_id)
        if run is None:
            return self._forgotten(fire)
        if run.ended is None:
            return fire
        self._fires.close(
            fire.run_id,
            run.status,  # type: ignore[arg-type]  # an ended run's: one of the three
            started=None if run.started is None else from_milliseconds(run.started),
            completed=from_milliseconds(run.ended),
            attempts=run.attempt,
            acceptance=record.acceptance if record else None,
        )
        return None

    def _forgotten(self, fire: Fire) -> Fire | None:
        """Redis lost the run: it runs (again) only if no worker had started it."""
        if fire.started is None:
            return replace(fire, published=None)
        if self._now() < fire.started + self._longest(fire):
            return fire  # the handler may still be at work
        _log.warning("a run left no trace", schedule=fire.schedule, run_id=fire.run_id)
        self._fires.close(fire.run_id, "lost", completed=self._now(), attempts=fire.attempts)
        return None

    def _longest(self, fire: Fire) -> timedelta:
        schedule = self._declared.get(fire.schedule)
        action = self._registry.actions.get(schedule.action if schedule else fire.action or "")
        return timedelta(seconds=action.timeout if action else 0.0)

    # Plan

    def _states(self, now: datetime) -> Mapping[str, State]:
        """The state of every declared schedule."""
        states = self._schedules.states()
        unknown = self._declared.keys() - states.keys()
        for name in unknown:  # another beat, of older code, took it for gone
            self._schedules.remember(self._declared[name], now)
        ahead = [name for name, state in states.items() if state.latest > now + WENT_BACK]
        for name in self._declared.keys() & set(ahead):
            _log.warning("planned by a clock that was ahead: planned anew", schedule=name)
            self._schedules.go_back(self._declared[name], states[name], now)
        if unknown or ahead:
            states = self._schedules.states()
        return {name: states[name] for name in self._declared if name in states}

    def _next(self, name: str, state: State) -> datetime:
        """The first fire that is not planned yet, by today's rules; what is stored is not asked."""
        through, following = self._following.get(name, (None, state.through))
        if through != state.through:
            following = next(fires_after(self._declared[name], state.through))
            self._following[name] = state.through, following
        return following

    def _plan(self, states: Mapping[str, State], busy: set[str], now: datetime) -> list[Fire]:
        """Plan what is due; the fires that are to run."""
        planned: list[Fire] = []
        for name, state in states.items():
            with _alone(name):
                if self._next(name, state) <= now:
                    planned += self._plan_one(self._declared[name], state, name in busy, now)
        self._planned.update(fire.run_id for fire in planned)
        return planned

    def _plan_one(self, schedule: Schedule, state: State, busy: bool, now: datetime) -> list[Fire]:
        """The same for one schedule; nothing where another beat was faster."""
        passed = latest_fires(schedule, state.through, now, KEPT_ROWS)
        due = [planned for planned in passed if state.fires_at(planned)]
        rows = plan_fires(schedule, due, now, busy=busy)
        inserted = self._schedules.plan(schedule, state, rows, now)
        if not inserted:
            return []
        self._fires.prune(schedule.name)
        for fire in inserted:
            _log.info(
                "fire", schedule=fire.schedule, planned=fire.planned.isoformat(),
                run_id=fire.run_id, action=schedule.action, what=fire.outcome or "runs",
            )  # fmt: skip
        return [fire for fire in inserted if fire.outcome is None]

    # Publish

    def _publish(self, open_fires: Iterable[Fire], now: datetime) -> bool:
        """Publish the fires whose turn it is; whether some have to wait for others."""
        by_schedule = defaultdict(list)
        for fire in open_fires:
            by_schedule[fire.schedule].append(fire)
        waiting = False
        for name, fires in by_schedule.items():
            with _alone(name):
                if name in self._declared:
                    waiting |= self._publish_serially(self._declared[name], fires, now)
        return waiting

    def _publish_serially(self, schedule: Schedule, fires: Iterable[Fire], now: datetime) -> bool:
        """The same for the fires of one schedule, in planned order."""
        going = any(fire.published for fire in fires)
        for fire in fires:
            if fire.published:
                continue
            if going and schedule.overlap == "skip" and not fire.manual:
                return True
            going = True
            if fire.run_id in self._planned or abs(now - fire.created) >= LEFT_BEHIND:
                try:
                    self._publisher.publish(schedule, fire.run_id, now)
                except QueueFull as error:
                    _log.warning("a fire waits", schedule=schedule.name, why=str(error))
                    return False
        return False


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """What goes wrong with one schedule costs no other a fire."""
    try:
        yield
    except CallboardError:
        raise
    except Exception as error:  # noqa: BLE001
        _log.error("schedule failed", schedule=name, exc_info=error)
