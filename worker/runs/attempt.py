"""One start of a handler, and what can become of it and of the message that asked for it."""

from __future__ import annotations

from typing import Literal, NamedTuple

from callboard.runs.outcome import Outcome
from callboard.runs.seal import Call
from callboard.runs.store import Claim, Take
from callboard.sdk.action import Action

__all__ = ["Attempt", "Delivered", "RunEnded"]


class Attempt(NamedTuple):
    """One start of a handler for a run that this process holds."""

    run_id: str
    action: Action
    holder: str
    claim: Claim
    call: Call
    deadline: float  # time.monotonic seconds


class Delivered(NamedTuple):
    """What became of a message."""

    end: Literal["succeeded", "failed", "retried"] | None  # None: it changed nothing
    error: str | None = None  # why, as the caller is told
    take: Take | None = None  # for the next message, if it was asked for with the end


class RunEnded(Exception):
    """The handler returned what cannot be its result; carries the end that the run gets."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.http_status)
        self.outcome = outcome
