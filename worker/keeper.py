"""The keeper: a thread of the worker's main process that keeps its runs.

Four times a second it renews the claims of the runs in hand, stops those that are out of time or
canceled, sends lost wake-ups again, and shows that the worker lives. It has a Redis
connection of its own and lives until the pool has drained, through reconnects of Celery's
consumer and through a graceful stop. A stop of a handler is always the same two steps: end
the run in its record, then kill the child; Celery's pool replaces it.

A claim that cannot be renewed lapses, and another worker may take the run: so a second thread,
which asks nobody, kills the child before that.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass, replace
from typing import Any

import structlog
from celery import bootsteps, signals
from celery.concurrency.prefork import TaskPool

from callboard import presence, store
from callboard.action import Action
from callboard.errors import CallboardError
from callboard.outcome import Outcome
from callboard.runs import Runs
from worker.execution import STOP_SIGNAL, install_stop_signal
from worker.hands import Hands, InHand
from worker.processes import bound_memory, die_first, die_with_parent
from worker.services import Services
from worker.transaction import kill_session

__all__ = ["Held", "Keeper", "KeeperStep"]

TURN_SECONDS = 0.25
CANCEL_SECONDS = 5.0  # from the soft to the hard stop of a canceled handler
POOL_SECONDS = 0.5
ALIVE_SECONDS = 5  # how long the worker's sign of life is good for
FENCE_SECONDS = 0.3  # before its claim lapses, a child is killed
EXIT_SECONDS = 1.0  # what Celery may take to exit after the last run was handed back

_log = structlog.get_logger("callboard.worker")


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A run in the hands of one of this worker's children."""

    hand: InHand
    action: Action
    holder: str  # what the claim's holder begins with
    stop_at: float  # time.monotonic seconds: when the handler is stopped
    lapses_at: float  # time.monotonic seconds, never later than by the clock of the broker
    renewed: bool = False  # the record has named our child as the holder
    canceled: bool = False
    taken_out: bool = False  # its child was killed, or has died: nothing more is done with it

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.hand.run_id

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self.hand.pid

    @property
    def key(self) -> tuple[int, int]:
        """A run may come to a child twice: each time is another entry."""
        return self.hand.pid, self.hand.number

    @property
    def names(self) -> dict[str, str]:
        """For the log."""
        return {"run_id": self.run_id, "action": self.action.name}


class Keeper:
    """The runs in hand of one worker."""

    def __init__(self, services: Services, hostname: str) -> None:
        self._services = services
        self._hands = services.hands
        self._presence = presence.WORKER + hostname
        self._redis = services.connect()
        self._runs = Runs(self._redis, services.sealer)
        self._held: dict[tuple[int, int], Held] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopped = False
        self._drain_until: float | None = None
        shortest = min((a.timeout for a in services.registry.actions.values()), default=1.0)
        self._turn_seconds = min(TURN_SECONDS, max(shortest / 2, 0.01))

    # Told by the requests, in Celery's own thread

    def child_died(self, pid: int) -> Held | None:
        """Queue the run that it had in hand again, or end it if that happened too often.

        Returns it, also if the child was killed from here; None if it had none.
        """
        with self._lock:
            hand = self._hands.of(pid)
            had = hand and self._held_for(hand)
        if held := self.take_out(pid):
            with self._tolerant():
                lost, over = self._runs.lose(held.run_id, held.holder)
                _log.warning("worker process lost", **held.names, pid=held.pid, lost=lost)
                if over:
                    self._end(held, Outcome.lost(held.run_id))
        return had

    def take_out(self, pid: int) -> Held | None:
        """The run that this child has in hand, whatever happens to the child; None if it has
        none, or was taken out before."""
        with self._lock:
            hand = self._hands.of(pid)
            held = hand and self._held_for(hand)
            if not held or held.taken_out:
                return None
            self._held[held.key] = replace(held, taken_out=True)
            return held

    def hand_back(self, held: Held) -> None:
        """Queue the run again; its child was stopped by us, so it does not count as lost.

        A handler that must not start twice ends here.
        """
        with self._tolerant():
            if held.action.on_worker_lost == "fail":
                self._end(held, Outcome.lost(held.run_id))
                return
            self._kill_session(held.run_id)
            self._runs.requeue(held.run_id, held.holder)

    def drain(self) -> None:
        """A graceful stop began: what is not done within the grace is handed back."""
        self._hands.close()
        self._drain_until = time.monotonic() + self._services.settings.stop_grace
        self._wake.set()

    def stop(self) -> None:
        """The pool has drained."""
        self._stopped = True
        self._wake.set()

    # The threads

    def start(self) -> None:
        """Show a sign of life and start the threads."""
        with self._tolerant():
            self._show_alive()
        threading.Thread(target=self._run, name="keeper", daemon=True).start()
        threading.Thread(target=self._fence, name="fence", daemon=True).start()

    def _run(self) -> None:
        while not self._stopped:
            with self._tolerant():
                self._turn()
            if self._drain_until is not None and time.monotonic() >= self._drain_until:
                self._end_of_grace()
            self._wake.wait(self._pause())
            self._wake.clear()
        with self._tolerant():
            presence.forget(self._redis, self._presence)

    def _fence(self) -> None:
        """Kill in time the children whose claims could not be renewed."""
        while not self._stopped:
            lapsing = time.monotonic() + FENCE_SECONDS
            for held in self._snapshot():
                if held.lapses_at <= lapsing and self._kill(held):
                    _log.warning("claim not renewed", **held.names, pid=held.pid)
            time.sleep(FENCE_SECONDS / 3)

    def _pause(self) -> float:
        soonest = [held.stop_at for held in self._snapshot()]
        if self._drain_until is not None:
            soonest.append(self._drain_until)
        until = min(soonest, default=float("inf")) - time.monotonic()
        return min(self._turn_seconds, max(until, 0.01))

    def _turn(self) -> None:
        self._stop_overdue()
        self._renew()
        self._show_alive()
        for run_id, action in self._runs.sweep():
            self._runs.expire(run_id, action, Outcome.failed("Expired", run_id))

    def _snapshot(self) -> list[Held]:
        """What the children have in hand now."""
        with self._lock:
            held = [self._held_for(hand) for hand in self._hands.all()]
            self._held = {one.key: one for one in held}
            return [one for one in held if not one.taken_out]

    def _held_for(self, hand: InHand) -> Held:
        """What is known of it. The lock is held."""
        known = self._held.get((hand.pid, hand.number))
        if known is not None:
            return known
        action = self._services.registry.actions[hand.action]
        return Held(
            hand=hand,
            action=action,
            holder=self._services.holder(hand.pid),
            stop_at=hand.since + action.timeout,
            lapses_at=hand.since + self._services.settings.recovery,
        )

    def _renew(self) -> None:
        in_hand = self._snapshot()
        if not in_hand:
            return
        pairs = [(held.run_id, held.holder) for held in in_hand]
        lease = self._services.settings.recovery
        lapses_at = time.monotonic() + lease
        states = self._runs.renew(pairs, lease)
        for held, state in zip(in_hand, states, strict=True):
            if state == "cancel" and not held.canceled:
                self._stop_softly(held)
            elif state in ("held", "cancel"):
                with self._lock:
                    self._update(held, renewed=True, lapses_at=lapses_at)
            elif state == "taken" and held.renewed:
                self._kill(held)

    def _update(self, held: Held, **changes: Any) -> bool:
        """Note something about a run, unless it was taken out meanwhile. The lock is held."""
        current = self._held.get(held.key)
        if current is None or current.taken_out:
            return False
        self._held[held.key] = replace(current, **changes)
        return True

    def _stop_softly(self, held: Held) -> None:
        """Raise in the handler; `_stop_overdue` does the rest if it does not end."""
        stop_at = min(held.stop_at, time.monotonic() + CANCEL_SECONDS)
        with self._lock, contextlib.suppress(ProcessLookupError):
            if self._update(held, canceled=True, stop_at=stop_at):
                self._hands.ask_to_stop(held.hand)
                os.kill(held.pid, STOP_SIGNAL)

    def _stop_overdue(self) -> None:
        now = time.monotonic()
        for held in self._snapshot():
            if held.stop_at <= now:
                self._stop_hard(held)

    def _stop_hard(self, held: Held) -> None:
        """End the run, then the child: it cannot end the run any more, and waits for that.

        A child whose run is another's by now, or has no record any more, is stopped as well.
        """
        timed_out = f"Timed out after {held.action.timeout:g} s"
        outcome = (
            Outcome.canceled(held.run_id)
            if held.canceled
            else Outcome.failed(timed_out, held.run_id)
        )
        if self._end(held, outcome):
            _log.warning("run stopped", **held.names, why=outcome.error)
        self._kill(held)

    def _end(self, held: Held, outcome: Outcome) -> bool:
        """Finish the run in the child's place, its open transaction first."""
        self._kill_session(held.run_id)
        return self._runs.finish(held.run_id, held.action.name, held.holder, outcome)

    def _kill_session(self, run_id: str) -> None:
        session = self._runs.session(run_id)
        if session:
            kill_session(store.database(), session)

    def _kill(self, held: Held) -> bool:
        """Kill the child, if it still has this run in hand."""
        with self._lock, contextlib.suppress(ProcessLookupError):
            if self._hands.of(held.pid) == held.hand and self._update(held, taken_out=True):
                os.kill(held.pid, signal.SIGKILL)
                return True
        return False

    def _end_of_grace(self) -> None:
        for held in self._snapshot():
            if self._kill(held):
                self.hand_back(held)
        deadline = time.monotonic() + EXIT_SECONDS
        while not self._stopped and time.monotonic() < deadline:
            self._wake.wait(0.1)
        if not self._stopped:
            os._exit(0)  # nothing is in hand; Celery is stuck on a broker that is away

    def _show_alive(self) -> None:
        content = json.dumps({"pid": os.getpid(), "queues": self._services.registry.queues})
        presence.show(self._redis, self._presence, content, ALIVE_SECONDS)

    @contextlib.contextmanager
    def _tolerant(self) -> Any:
        """The broker or the database may be away: the next turn tries again."""
        try:
            yield
        except CallboardError as error:
            _log.warning("keeper waits", why=type(error).__name__)


class KeeperStep(bootsteps.StartStopStep):
    """Starts the keeper once the pool runs. It stops at `worker_shutdown`, not with the steps."""

    requires = ("celery.worker.components:Pool",)

    def start(self, worker: Any) -> None:
        """Called by Celery."""
        keeper = worker.app.keeper
        keeper.start()
        signals.worker_shutting_down.connect(lambda **_: keeper.drain(), weak=False)
        signals.worker_shutdown.connect(lambda **_: keeper.stop(), weak=False)

    def register_with_event_loop(self, worker: Any, hub: Any) -> None:
        """Called by Celery. Have the pool notice dead children soon: its own pace is 5 s."""
        hub.call_repeatedly(POOL_SECONDS, worker.pool.maintain_pool)

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        if not issubclass(worker.pool_cls, TaskPool):
            pool = worker.pool_cls.__module__
            # not from a signal: Celery logs what a receiver raises and goes on
            sys.exit(f"callboard: The pool {pool!r} cannot stop a handler. Start without --pool.")
        services = worker.app.services
        worker.app.keeper = Keeper(services, worker.hostname)
        os.register_at_fork(before=services.hands.pick_row)
        signals.worker_process_init.connect(lambda **_: _prepare_child(services.hands), weak=False)


def _prepare_child(hands: Hands) -> None:
    die_with_parent()
    bound_memory()
    die_first()
    gc.freeze()  # what the main process had made stays: the collector need not look at it
    hands.begin()
    install_stop_signal(hands)
