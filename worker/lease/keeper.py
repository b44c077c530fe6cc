"""The keeper: what a worker's main process does for the runs that its children execute.

It is made of parts that know nothing of one another, each in a thread of its own, so that none
waits for what another waits for:

- renewing: extends the claims; a cancel that it learns of is passed on by a signal
- stopping: ends what is out of time, and what a graceful stop leaves
- sessions: ends database transactions that stopped runs left open
- sweep: sends lost wake-ups again
- release: queues runs whose time, or slot, has come
- fence: kills the child of a claim that could not be renewed
- heartbeat: shows that the worker lives, and that no thread of it is dead
- namespace: shows whose worker it is, and tells of other applications in its namespace

They live until the pool has drained, through reconnects of Celery's consumer and through a graceful
stop.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from celery import bootsteps, signals
from celery.concurrency.prefork import TaskPool

from callboard.applications import ApplicationHeartbeat, Process
from callboard.processes.threads import repeat, supervise, tolerant
from callboard.runs.store import Runs

from ..hooks.step import HooksStep
from ..loop.step import LoopStep
from ..pool.processes import begin_child
from ..pool.strays import end_strays
from ..runs.descendants import prepare_child
from ..runs.execution import install_stop_signal
from ..runs.lifecycle import HOOK_SECONDS
from ..services import Services
from .fence import FENCE_SECONDS, Fence
from .heartbeat import Heartbeat
from .held import Held, HeldRuns
from .releasing import RELEASE_SECONDS, Releasing
from .renewing import Renewing
from .sessions import Sessions
from .slots import Slots
from .stopping import Stopping
from .sweeping import Sweeping

__all__ = ["Keeper", "KeeperStep"]

TURN_SECONDS = 0.25
POOL_SECONDS = 0.5
LONGEST_PAUSE = 1.0  # seconds until a thread of the keeper that failed is started again
REPORT_SECONDS = 0.5  # that a handler out of time has to tell where it was, before it is killed
EXIT_SECONDS = 1.0  # what Celery may take to exit after the last run was handed back


class Keeper:
    """The runs in hand of one worker."""

    def __init__(self, services: Services, hostname: str) -> None:
        client = services.connect()
        runs = Runs(client, services.sealer, services.keys)
        settings, actions = services.settings, services.registry.actions
        self._scoreboard = services.scoreboard
        self._held = HeldRuns(
            services.scoreboard, services.slots, actions, services.holder, settings.recovery,
            HOOK_SECONDS if services.registry.hooks.listen else REPORT_SECONDS,
        )  # fmt: skip
        self._dead: queue.SimpleQueue[Slots] = queue.SimpleQueue()  # loop processes
        self._renewing = Renewing(self._held, runs, settings.recovery)
        self._sessions = Sessions(services.store.database)
        self._stopping = Stopping(self._held, runs, self._sessions)
        self._sweeping = Sweeping(runs)
        limits = {action.name: action.limit.numbers for action in actions.values() if action.limit}
        self._releasing = Releasing(runs, settings.max_queue, limits)
        self._fence = Fence(self._held)
        self._heartbeat = Heartbeat(
            client, services.keys.worker + hostname, services.registry.queues, services.slots,
            services.reports if services.registry.hooks.process else None,
        )  # fmt: skip
        me = Process.of(settings, f"worker {hostname}")
        self._application = ApplicationHeartbeat(client, services.keys, me)
        self._grace = settings.stop_grace
        self._drain_until: float | None = None
        self._stopped = threading.Event()
        self._wake = threading.Event()  # of the thread that stops
        shortest = min((action.timeout for action in actions.values()), default=1.0)
        self._pause = min(TURN_SECONDS, max(shortest / 2, 0.01))

    # Told by the requests, in Celery's own thread

    def child_died(self, pid: int) -> Held | None:
        """Queue the run that it had in hand again, or end it if that happened too often.

        Returns it, also if the child was killed from here; None if it had none.
        """
        return self._stopping.child_died(pid)

    def take_out(self, pid: int) -> Held | None:
        """The run that this child has in hand, whatever happens to the child; None if it has
        none, or was taken out before."""
        return self._held.take_out(pid)

    def hand_back(self, held: Held) -> None:
        """Queue the run again; its child was stopped by us, so it does not count as lost."""
        self._stopping.hand_back(held)

    def loop_died(self, slots: Slots) -> None:
        """A loop process has ended: what it had in hand is queued again, and then the slots are
        cleared."""
        self._dead.put(slots)
        self._wake.set()

    def drain(self) -> None:
        """A graceful stop began: what is not done within the grace is handed back."""
        self._scoreboard.close()
        self._drain_until = time.monotonic() + self._grace
        self._wake.set()

    def stop(self) -> None:
        """The pool has drained."""
        self._stopped.set()
        self._wake.set()

    # The threads

    def start(self) -> None:
        """Show a sign of life and start the threads."""
        with tolerant("keeper"):
            self._heartbeat.turn()
        self._repeat("renewing", self._renewing.turn, self._pause)
        self._repeat("sweep", self._sweeping.turn, TURN_SECONDS)
        self._repeat("release", self._releasing.turn, RELEASE_SECONDS)
        self._repeat("fence", self._fence.turn, FENCE_SECONDS / 3)
        self._supervise("stopping", self._stop)
        self._supervise("sessions", partial(self._sessions.run, self._stopped))
        self._supervise("heartbeat", partial(self._heartbeat.run, self._stopped))
        self._supervise("namespace", partial(self._application.run, self._stopped))

    def _repeat(self, name: str, turn: Callable[[], object], pause: float) -> None:
        wait = partial(self._stopped.wait, pause)
        self._supervise(name, partial(repeat, name, turn, wait, self._stopped))

    def _supervise(self, name: str, run: Callable[[], object]) -> None:
        supervise(name, run, self._stopped, longest_pause=LONGEST_PAUSE)

    def _stop(self) -> None:
        """Stop what is overdue; at the end of the grace, what is left."""
        repeat("stopping", self._stop_turn, self._wait_for_stop, self._stopped)

    def _stop_turn(self) -> None:
        if self._drain_until is not None and time.monotonic() >= self._drain_until:
            self._end_of_grace()
        while not self._dead.empty():
            slots = self._dead.get()
            self._stopping.loop_died(slots)
            slots.clear()
        self._stopping.turn()

    def _wait_for_stop(self) -> None:
        until = min(self._stopping.soonest(), self._drain_until or float("inf"))
        self._wake.wait(min(self._pause, max(until - time.monotonic(), 0.01)))
        self._wake.clear()

    def _end_of_grace(self) -> None:
        """Kill the children, hand back what they had; then end, should Celery not."""
        killed = [held for held in self._held.all() if self._held.kill(held)]
        for held in killed:
            if not self._stopping.hand_back(held):
                break  # the broker is away: the claims lapse
        if not self._stopped.wait(EXIT_SECONDS):
            end_strays()
            os._exit(0)  # nothing is in hand; Celery is stuck on a broker that is away


class KeeperStep(bootsteps.StartStopStep):
    """Starts the keeper once the pool runs. It stops at `worker_shutdown`, not with the steps."""

    requires = ("celery.worker.components:Pool", LoopStep, HooksStep)

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
        os.register_at_fork(before=services.scoreboard.pick_row)
        main = os.getpid()
        signals.worker_process_init.connect(lambda **_: _prepare_child(services, main), weak=False)


def _prepare_child(services: Services, main: int) -> None:
    begin_child(main)
    prepare_child()
    services.scoreboard.begin()
    install_stop_signal(services)
    services.state = services.resources.open()
