"""A start: a run that is to be, and its terms: when it is due, which group it counts for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from callboard.runs.seal import Call

if TYPE_CHECKING:
    from callboard.sdk.action import Action

__all__ = ["PARKED_SECONDS", "Start", "Terms", "milliseconds"]

PARKED_SECONDS = 3600  # what is due later than this survives the loss of Redis


def milliseconds(seconds: float) -> int:
    """Of a delay: never less than it."""
    return -(-round(seconds * 1_000_000) // 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Of one run. A plain call has none."""

    delay: int = 0  # milliseconds from now until it is due; 0: now
    group: str = ""  # the group that the run counts for
    join: str = ""  # the group whose end the run waits for
    size: int = 0  # runs of that group

    @property
    def is_parked(self) -> bool:
        """Whether it waits so long that the outbox keeps it."""
        return self.delay > PARKED_SECONDS * 1000

    def arguments(self) -> list[str | int]:
        """What the script ``accept`` takes besides a call."""
        return [max(self.delay, 0), self.group, self.join, self.size]


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """All that a run is made of."""

    run_id: str
    action: Action
    call: Call  # expires `callboard.runs.seal.CALL_LIFETIME` after the run is due
    terms: Terms = Terms()
    idempotency: tuple[str, str] | None = None  # see `Runs.acceptance`
