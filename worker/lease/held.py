"""The held runs: what is known of each run that a child of this worker executes.

`worker.lease.hands` says which; here stands until when each may go on, and what has been done about
it. A run that was taken out is nobody's business any more: its child was killed, or has died.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from callboard.sdk.action import Action

from ..runs.execution import STOP_SIGNAL
from .hands import Hands, InHand

__all__ = ["Held", "HeldRuns"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A run in the hands of one of this worker's children."""

    hand: InHand
    action: Action
    holder: str  # what the child has claimed it by
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


class HeldRuns:
    """Those of one worker; its threads share them. Nothing here asks a server.

    ``holder``: by what a child, told by process id and number, claims a run; ``lease``: seconds.
    """

    def __init__(
        self,
        hands: Hands,
        actions: Mapping[str, Action],
        holder: Callable[[int, int], str],
        lease: float,
    ) -> None:
        self._hands = hands
        self._actions = actions
        self._holder = holder
        self._lease = lease
        self._held: dict[tuple[int, int], Held] = {}
        self._lock = threading.Lock()

    def all(self) -> list[Held]:
        """What the children have in hand now."""
        with self._lock:
            held = [self._known(hand) for hand in self._hands.all()]
            self._held = {one.key: one for one in held}
            return [one for one in held if not one.taken_out]

    def of(self, pid: int) -> Held | None:
        """What this child, dead or alive, has in hand, whether it was taken out or not."""
        with self._lock:
            hand = self._hands.of(pid)
            return hand and self._known(hand)

    def take_out(self, pid: int) -> Held | None:
        """The run that this child has in hand, whatever happens to the child; None if it has
        none, or was taken out before."""
        with self._lock:
            hand = self._hands.of(pid)
            held = hand and self._known(hand)
            if not held or held.taken_out:
                return None
            self._held[held.key] = replace(held, taken_out=True)
            return held

    def note(self, held: Held, **changes: Any) -> None:
        """Note something about a run, unless it was taken out meanwhile."""
        with self._lock:
            self._update(held, **changes)

    def stop_softly(self, held: Held, stop_at: float) -> None:
        """Raise in the handler of a canceled run; from ``stop_at`` on the run is overdue."""
        stop_at = min(held.stop_at, stop_at)
        with self._lock, contextlib.suppress(ProcessLookupError):
            if self._update(held, canceled=True, stop_at=stop_at):
                self._hands.ask_to_stop(held.hand)
                os.kill(held.pid, STOP_SIGNAL)

    def kill(self, held: Held) -> bool:
        """Kill the child, if it still has this run in hand: the one place where that is done."""
        with self._lock, contextlib.suppress(ProcessLookupError):
            if self._hands.of(held.pid) == held.hand and self._update(held, taken_out=True):
                os.kill(held.pid, signal.SIGKILL)
                return True
        return False

    # The lock is held

    def _known(self, hand: InHand) -> Held:
        known = self._held.get((hand.pid, hand.number))
        if known is not None:
            return known
        action = self._actions[hand.action]
        return Held(
            hand=hand,
            action=action,
            holder=self._holder(hand.pid, hand.number),
            stop_at=hand.since + action.timeout,
            lapses_at=hand.since + self._lease,
        )

    def _update(self, held: Held, **changes: Any) -> bool:
        """Whether it was still in hand."""
        current = self._held.get(held.key)
        if current is None or current.taken_out:
            return False
        self._held[held.key] = replace(current, **changes)
        return True
