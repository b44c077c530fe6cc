"""The held runs: what is known of each run that a process of this worker executes.

`worker.lease.scoreboard` and `worker.lease.slots` say which; here stands until when each may go
on, and what has been done about it. A run that was taken out is nobody's business any more: its
process was killed, or has died.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from callboard.sdk.action import Action

from ..runs.execution import STOP_SIGNAL
from .scoreboard import Scoreboard
from .slots import Slots
from .table import ActiveRun

__all__ = ["STOP_SECONDS", "Held", "HeldRuns"]

STOP_SECONDS = 5.0  # from the soft to the hard stop of a handler


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A run that one of this worker's processes executes."""

    active: ActiveRun
    action: Action[Any]
    holder: str  # what the process has claimed it by
    out_at: float  # time.monotonic seconds: the handler is out of time
    stop_at: float  # time.monotonic seconds: when the process is stopped
    lapses_at: float  # time.monotonic seconds, never later than by the clock of the broker
    slots: Slots | None = field(default=None, repr=False)  # it has others beside it in its process
    spent: float = 0.0  # seconds of the run's time that were over before, as far as is known
    renewed: bool = False  # the record has named our process as the holder
    stop_requested: bool = False  # the handler was to stop by itself
    canceled: bool = False
    taken_out: bool = False  # its process was killed, or has died: nothing more is done with it

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.active.run_id

    @property
    def pid(self) -> int:
        """The process id."""
        return self.active.pid

    @property
    def key(self) -> tuple[int, int]:
        """A run may come to a process twice: each time is another entry."""
        return self.active.pid, self.active.number

    @property
    def names(self) -> dict[str, str]:
        """For the log."""
        return {"run_id": self.run_id, "action": self.action.name}


class HeldRuns:
    """Those of one worker; its threads share them. Nothing here asks a server.

    ``slots``: those of its loop processes. ``holder``: by what a process, told by its id and the
    run's number, claims a run; ``lease``: seconds; ``patience``: seconds that a child has to stop
    a handler that is out of time by itself, and to tell hooks of it.
    """

    def __init__(
        self,
        scoreboard: Scoreboard,
        slots: Sequence[Slots],
        actions: Mapping[str, Action[Any]],
        holder: Callable[[int, int], str],
        lease: float,
        patience: float = 0.0,
    ) -> None:
        self._scoreboard = scoreboard
        self._slots = slots
        self._actions = actions
        self._holder = holder
        self._lease = lease
        self._patience = patience
        self._held: dict[tuple[int, int], Held] = {}
        self._killed: set[int] = set()  # loop processes that were killed from here
        self._lock = threading.Lock()

    def all(self) -> list[Held]:
        """What the processes have in hand now."""
        with self._lock:
            held = [self._with_spent(self._known(active)) for active in self._scoreboard.all()]
            for slots in self._slots:
                held += [self._known(active, slots) for active in slots.all()]
            self._held = {one.key: one for one in held}
            return [one for one in held if not one.taken_out]

    def of(self, pid: int) -> Held | None:
        """What this child, dead or alive, has in hand, whether it was taken out or not."""
        with self._lock:
            active = self._scoreboard.of(pid)
            return active and self._known(active)

    def take_out(self, pid: int) -> Held | None:
        """The run that this child has in hand, whatever happens to the child; None if it has
        none, or was taken out before."""
        with self._lock:
            active = self._scoreboard.of(pid)
            return self._taken_out(self._known(active)) if active else None

    def forget(self, pid: int) -> None:
        """This child is dead, and what it had in hand is another's: its id may soon be, too."""
        with self._lock:
            self._scoreboard.forget(pid)

    def take_out_all(self, slots: Slots) -> tuple[list[Held], bool]:
        """The runs that a loop process had in hand when it died; and whether it was killed from
        here, for another run's sake."""
        with self._lock:
            killed = slots.pid in self._killed
            self._killed.discard(slots.pid)
            known = [self._known(active, slots) for active in slots.left()]
            return [held for one in known if (held := self._taken_out(one))], killed

    def note(self, held: Held, **changes: Any) -> None:
        """Note something about a run, unless it was taken out meanwhile."""
        with self._lock:
            self._update(held, **changes)

    def stop_softly(self, held: Held, stop_at: float, **changes: Any) -> None:
        """Raise in the handler; from ``stop_at`` on the run is overdue."""
        stop_at = min(held.stop_at, stop_at)
        with self._lock, contextlib.suppress(ProcessLookupError):
            if self._update(held, stop_at=stop_at, stop_requested=True, **changes):
                (held.slots or self._scoreboard).request_stop(held.active)
                os.kill(held.pid, STOP_SIGNAL)

    def kill(self, held: Held) -> bool:
        """Kill the process, if it still has this run in hand: the one place where that is done.

        What else a loop process has in hand stays, for `take_out_all`.
        """
        with self._lock, contextlib.suppress(ProcessLookupError):
            if (held.slots or self._scoreboard).has(held.active) and self._update(
                held, taken_out=True
            ):
                if held.slots:
                    self._killed.add(held.pid)
                os.kill(held.pid, signal.SIGKILL)
                return True
        return False

    # The lock is held

    def _known(self, active: ActiveRun, slots: Slots | None = None) -> Held:
        known = self._held.get((active.pid, active.number))
        if known is not None:
            return known
        action = self._actions[active.action]
        out_at = active.since + action.timeout
        patience = STOP_SECONDS if slots else self._patience  # a loop stops handlers by itself
        return Held(
            active=active,
            action=action,
            slots=slots,
            holder=self._holder(active.pid, active.number),
            out_at=out_at,
            stop_at=out_at + patience,
            lapses_at=active.since + self._lease,
        )

    def _with_spent(self, held: Held) -> Held:
        """Its end is the sooner, the more of its time was over before: its child says so once it
        has claimed it."""
        spent = self._scoreboard.spent(held.active)
        sooner = spent - held.spent
        if not sooner:
            return held
        out_at, stop_at = held.out_at - sooner, held.stop_at - sooner
        return replace(held, spent=spent, out_at=out_at, stop_at=stop_at)

    def _taken_out(self, held: Held) -> Held | None:
        """The run, unless it was taken out before."""
        if held.taken_out:
            return None
        self._held[held.key] = replace(held, taken_out=True)
        return held

    def _update(self, held: Held, **changes: Any) -> bool:
        """Whether it was still in hand."""
        current = self._held.get(held.key)
        if current is None or current.taken_out:
            return False
        self._held[held.key] = replace(current, **changes)
        return True
