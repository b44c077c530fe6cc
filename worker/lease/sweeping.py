"""Sweeping: lost wake-ups are sent again, and runs that stayed queued for too long are ended."""

from __future__ import annotations

from callboard.processes.threads import tolerant
from callboard.runs.outcome import Outcome
from callboard.runs.store import Runs

__all__ = ["Sweeping"]


class Sweeping:
    """Any worker sweeps for all; the script sees to it that one does at a time."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs

    def turn(self) -> None:
        """One sweep. Raises `BrokerUnavailable`. A run that cannot be ended holds no other up."""
        for run_id, action in self._runs.sweep():
            with tolerant("sweep", run_id=run_id):
                self._runs.expire(run_id, action, Outcome.failed("Expired", run_id))
