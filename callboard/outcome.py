"""How a run ended: an HTTP status and the body that the caller gets."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal

from callboard.results import ActionResult

__all__ = ["MAX_RESULT_BYTES", "WORKER_LOST", "Outcome"]

MAX_RESULT_BYTES = 1024 * 1024
WORKER_LOST = "Worker lost"  # the error of a run whose workers died too often


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The end of a run. The constructors below are all the ends that there are."""

    code: int  # the HTTP status of a call that waited: 200, 409, 500 or 503
    body: bytes = field(repr=False)  # the envelope, JSON
    status: Literal["succeeded", "failed", "canceled"]
    retryable: bool = False  # the same call may succeed later: an idempotency key starts it again

    @classmethod
    def of(cls, result: object, run_id: str) -> Outcome:
        """What the handler returned; a failure where that is no ActionResult, or no JSON."""
        if not isinstance(result, ActionResult):
            return cls.failed("Action failed", run_id)
        try:
            body = _compact(result.envelope()).encode()
        except (TypeError, ValueError, RecursionError):
            return cls.failed("Action failed", run_id)
        if len(body) > MAX_RESULT_BYTES:
            return cls.failed("Result too large", run_id)
        return cls(code=200, body=body, status="succeeded" if result.success else "failed")

    @classmethod
    def failed(cls, error: str, run_id: str, *, retryable: bool = False) -> Outcome:
        """Callboard ended the run: 500."""
        return cls(code=500, body=_failure(error, run_id), status="failed", retryable=retryable)

    @classmethod
    def lost(cls, run_id: str) -> Outcome:
        """Too many workers died with the run: 500, kept for an operator to start it again."""
        return cls.failed(WORKER_LOST, run_id, retryable=True)

    @classmethod
    def unavailable(cls, error: str, run_id: str) -> Outcome:
        """Something that the run stands on is away: 503."""
        return cls(code=503, body=_failure(error, run_id), status="failed", retryable=True)

    @classmethod
    def canceled(cls, run_id: str) -> Outcome:
        """Somebody canceled the run: 409 for a caller who waits."""
        return cls(code=409, body=_failure("Canceled", run_id), status="canceled")

    def to_bytes(self) -> bytes:
        """``<code> <status> <retryable>`` as a first line, then the body."""
        return f"{self.code} {self.status} {int(self.retryable)}\n".encode() + self.body

    @classmethod
    def from_bytes(cls, content: bytes) -> Outcome:
        """The reverse of `to_bytes`."""
        head, _, body = content.partition(b"\n")
        code, status, retryable = head.decode().split()
        return cls(code=int(code), body=body, status=status, retryable=retryable == "1")  # type: ignore[arg-type]  # one of the three, as sealed

    def envelope(self) -> dict[str, Any]:
        """The body, parsed."""
        parsed: dict[str, Any] = json.loads(self.body)
        return parsed

    @property
    def error(self) -> str | None:
        """The failure that the body tells; None for a success."""
        return None if self.status == "succeeded" else str(self.envelope().get("error"))


_compact = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode


def _failure(error: str, run_id: str) -> bytes:
    return json.dumps({"success": False, "error": error, "runId": run_id}).encode()
