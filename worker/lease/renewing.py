"""Renewing: the claims of the runs in hand are extended, again and again, before they lapse.

Nothing else happens here, and nothing slow: what the record answers is acted on by signals alone.
"""

from __future__ import annotations

import time

from callboard.runs.store import Runs

from .held import Held, HeldRuns

__all__ = ["CANCEL_SECONDS", "Renewing"]

CANCEL_SECONDS = 5.0  # from the soft to the hard stop of a canceled handler


class Renewing:
    """Of one worker. ``lease``: seconds that a claim is good for."""

    def __init__(self, held: HeldRuns, runs: Runs, lease: float) -> None:
        self._held = held
        self._runs = runs
        self._lease = lease

    def turn(self) -> None:
        """Renew each claim once. Raises `BrokerUnavailable`."""
        in_hand = self._held.all()
        if not in_hand:
            return
        lapses_at = time.monotonic() + self._lease
        states = self._runs.renew([(held.run_id, held.holder) for held in in_hand], self._lease)
        for held, state in zip(in_hand, states, strict=True):
            self._act(held, state, lapses_at)

    def _act(self, held: Held, state: str, lapses_at: float) -> None:
        if state in ("held", "cancel"):
            self._held.note(held, renewed=True, lapses_at=lapses_at)
        if state == "cancel" and not held.canceled:
            self._held.stop_softly(held, time.monotonic() + CANCEL_SECONDS)
        elif state == "taken" and held.renewed:
            self._held.kill(held)
