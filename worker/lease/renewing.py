"""Renewing: the claims of the runs in hand are extended, again and again, before they lapse.

Nothing else happens here, and nothing slow: what the record answers is acted on by signals alone.
"""

from __future__ import annotations

import time
from operator import attrgetter

from callboard.runs.store import Runs

from .held import STOP_SECONDS, Held, HeldRuns

__all__ = ["Renewing"]

AT_ONCE = 250  # claims in one turn: a script holds everybody up while it runs


class Renewing:
    """Of one worker. ``lease``: seconds that a claim is good for. ``at_once``: claims in a turn,
    unless more are needed to renew each several times a lease."""

    def __init__(self, held: HeldRuns, runs: Runs, lease: float, at_once: int = AT_ONCE) -> None:
        self._held = held
        self._runs = runs
        self._lease = lease
        self._at_once = at_once

    def turn(self) -> None:
        """Renew each claim once, of many those whose turn it is. Raises `BrokerUnavailable`."""
        in_hand = self._next_batch(self._held.all())
        if not in_hand:
            return
        lapses_at = time.monotonic() + self._lease
        states = self._runs.renew([(held.run_id, held.holder) for held in in_hand], self._lease)
        for held, state in zip(in_hand, states, strict=True):
            self._act(held, state, lapses_at)

    def _next_batch(self, held: list[Held]) -> list[Held]:
        """All of a few; of many those whose claims lapse first. Turns are a quarter of a second
        apart, so that each is renewed four times a lease."""
        at_once = max(self._at_once, round(len(held) / self._lease))
        if len(held) <= at_once:
            return held
        return sorted(held, key=attrgetter("lapses_at"))[:at_once]

    def _act(self, held: Held, state: str, lapses_at: float) -> None:
        if state in ("held", "cancel"):
            self._held.note(held, renewed=True, lapses_at=lapses_at)
        if state == "cancel" and not held.canceled:
            self._held.stop_softly(held, time.monotonic() + STOP_SECONDS, canceled=True)
        elif state == "taken" and held.renewed:
            self._give_up(held)

    def _give_up(self, held: Held) -> None:
        """It is another's by now: its handler must not go on. Others beside it may."""
        if held.slots:
            self._held.stop_softly(held, time.monotonic() + STOP_SECONDS)
        else:
            self._held.kill(held)
