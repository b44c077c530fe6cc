"""Stopping: runs that are out of time, canceled, or whose child has died.

A stop of a handler is always the same two steps: end the run in its record, then kill the child;
Celery's pool replaces it. A transaction that the handler has open is ended first, so that it cannot
commit what the caller is told has failed, but nobody waits long for the database.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import structlog

from callboard.errors import BrokerUnavailable
from callboard.processes.threads import tolerant
from callboard.runs.outcome import Outcome
from callboard.runs.store import Runs

from .held import Held, HeldRuns
from .sessions import Sessions
from .slots import Slots

__all__ = ["Stopping"]

SESSIONS_SECONDS = 0.5  # that ending runs waits for the database to end their transactions

_log = structlog.get_logger("callboard.worker")


class Stopping:
    """Of one worker."""

    def __init__(self, held: HeldRuns, runs: Runs, sessions: Sessions) -> None:
        self._held = held
        self._runs = runs
        self._sessions = sessions

    def turn(self) -> None:
        """Stop every run that is overdue. Raises `BrokerUnavailable`: then none is stopped, and the
        fence kills the children in time."""
        now, all_held = time.monotonic(), self._held.all()
        for held in all_held:
            if _is_to_stop_itself(held) and held.out_at <= now < held.stop_at:
                self._held.stop_softly(held, held.stop_at)
        overdue = [held for held in all_held if held.stop_at <= now]
        if overdue:
            self._end_sessions(overdue, SESSIONS_SECONDS)
        for held in overdue:
            self._stop(held)

    def soonest(self) -> float:
        """When something is to be done about the next run (time.monotonic seconds)."""
        return min(map(_next, self._held.all()), default=float("inf"))

    def child_died(self, pid: int) -> Held | None:
        """Queue the run that it had in hand again, or end it if that happened too often.

        Returns it, also if the child was killed from here; None if it had none.
        """
        had = self._held.of(pid)
        if held := self._held.take_out(pid):
            with tolerant("keeper", **held.names):
                self._lose(held)
        self._held.forget(pid)
        return had

    def loop_died(self, slots: Slots) -> None:
        """The same for a loop process and all that it had in hand.

        Of one that was killed from here, for the sake of a single run, no other counts as lost.
        """
        left, killed = self._held.take_out_all(slots)
        with tolerant("keeper"):  # while the broker is away: the claims lapse
            for held in left:
                if killed:
                    self._give_back(held)
                else:
                    self._lose(held)

    def hand_back(self, held: Held) -> bool:
        """Queue the run again; its child was stopped by us, so it does not count as lost.

        A handler that must not start twice ends here. False while the broker is away.
        """
        with tolerant("keeper", **held.names):
            self._give_back(held)
            return True
        return False

    def _give_back(self, held: Held) -> None:
        self._end_sessions([held], 0.0)  # whoever claims it ends the session too
        if held.action.on_worker_lost == "fail":
            self._end(held, Outcome.lost(held.run_id))
        else:
            self._runs.requeue(held.run_id, held.holder)

    def _lose(self, held: Held) -> None:
        session = self._runs.session(held.run_id)  # before another claims the run and has its own
        lost, over = self._runs.lose(held.run_id, held.holder)
        if lost < 0:
            return  # it had ended, or is another's
        _log.warning("worker process lost", **held.names, pid=held.pid, lost=lost)
        self._sessions.end(filter(None, [session]), 0.0)  # whoever claims it tries this only once
        if over:
            self._end(held, Outcome.lost(held.run_id))

    def _stop(self, held: Held) -> None:
        """End the run, then the child: it cannot end the run any more, and waits for that.

        A child whose run is another's by now, or has no record any more, is stopped as well.
        """
        outcome = (
            Outcome.canceled(held.run_id)
            if held.canceled
            else Outcome.timed_out(held.action.timeout, held.run_id)
        )
        try:
            if self._end(held, outcome):
                _log.warning("run stopped", **held.names, why=outcome.error)
        except BrokerUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - the handler is to stop, come what may
            _log.error("a run was not ended", **held.names, exc_info=error)
        self._held.kill(held)

    def _end(self, held: Held, outcome: Outcome) -> bool:
        """Finish the run in the child's place."""
        return self._runs.finish(held.run_id, held.action.name, held.holder, outcome)

    def _end_sessions(self, stopped: Sequence[Held], seconds: float) -> None:
        """End the transactions that these runs have open; waits no longer than told."""
        sessions = [self._runs.session(held.run_id) for held in stopped]
        self._sessions.end(filter(None, sessions), seconds)


def _is_to_stop_itself(held: Held) -> bool:
    """Whether a child is to be told when its handler is out of time: hooks are told of it there."""
    return held.slots is None and not held.stop_requested


def _next(held: Held) -> float:
    return min(held.out_at, held.stop_at) if _is_to_stop_itself(held) else held.stop_at
