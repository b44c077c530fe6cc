"""Sweeping: lost wake-ups are sent again, and runs end that were queued for too long, or wait for a
group that is gone."""

from __future__ import annotations

import structlog

from callboard.processes.threads import tolerant
from callboard.runs.outcome import Outcome
from callboard.runs.store import Runs

__all__ = ["Sweeping"]

_log = structlog.get_logger("callboard.worker")


class Sweeping:
    """Any worker sweeps for all; the script sees to it that one does at a time."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs

    def turn(self) -> None:
        """One sweep. Raises `BrokerUnavailable`. A run that cannot be ended holds no other up."""
        for run_id, action in self._runs.sweep():
            with tolerant("sweep", run_id=run_id):
                _log.warning("a run expires", run_id=run_id, action=action)
                self._runs.expire(run_id, action, Outcome.failed("Expired", run_id))
