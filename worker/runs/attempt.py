"""One start of a handler, and what can become of it and of the message that asked for it."""

from __future__ import annotations

from typing import Literal, NamedTuple

from callboard.log.run_log import RunLog
from callboard.runs.commands import Claim, Wait
from callboard.runs.outcome import Outcome
from callboard.runs.seal import Call
from callboard.runs.store import ReceiveMessage
from callboard.sdk.action import Action

__all__ = ["Attempt", "Delivered", "Parked", "RunEnded"]


class Attempt(NamedTuple):
    """One start of a handler for a run that this process holds."""

    run_id: str
    action: Action
    holder: str
    claim: Claim
    call: Call
    deadline: float  # time.monotonic seconds
    log: RunLog
    scope: str = ""  # what of the attempt: "" the handler, else what hooks are told

    @property
    def ids(self) -> str:
        """What the ids of records and runs derive from: those of hooks are others."""
        return f"{self.run_id}\n{self.scope}" if self.scope else self.run_id

    def apart(self, scope: str, deadline: float) -> Attempt:
        """The same, for hooks that are told of it."""
        known = self.run_id, self.action, self.holder, self.claim, self.call
        return Attempt(*known, deadline, self.log, scope)

    def retries(self, error: BaseException) -> bool:
        """Whether the action asks for another attempt after this exception."""
        retry = self.action.retry
        return bool(retry and retry.covers(error) and self.claim.attempt < retry.max_attempts)


class Delivered(NamedTuple):
    """What became of a message."""

    end: Literal["succeeded", "failed", "retried"] | None  # None: it changed nothing
    error: str | None = None  # why, as the caller is told
    receive: ReceiveMessage | None = None  # for the next message, if it was asked for with the end


class Parked(BaseException):
    """The handler waits, and is started again when that is over."""

    def __init__(self, wait: Wait) -> None:
        super().__init__(f"waits for {wait.kind} {wait.name!r}")
        self.wait = wait


class RunEnded(Exception):
    """The handler returned what cannot be its result; carries the end that the run gets."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.http_status)
        self.outcome = outcome
