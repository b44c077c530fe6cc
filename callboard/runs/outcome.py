"""How a run ended: an HTTP status and the body that the caller gets.

The codes of failures that Callboard ends a run with are derived from their texts: so those of
earlier versions, which stored none, have one, too.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import CoroutineType
from typing import Any, Literal

from pydantic_core import from_json

from callboard import strict_json
from callboard.runs.report import Sealed
from callboard.sdk.results import ActionResult, fail, is_result, ok

__all__ = ["MAX_RESULT_BYTES", "WORKER_LOST", "Outcome"]

MAX_RESULT_BYTES = 1024 * 1024
MAX_DEBUG = 16_384  # characters
WORKER_LOST = "Worker lost"  # the error of a run whose workers died too often
_DEPTH = strict_json.MAX_DEPTH + 1  # the data lies in the envelope

_CODES = {200: "failed", 409: "canceled", 503: "unavailable"}  # of ends with this HTTP status
_ENDS = {  # text of an end with 500 -> its code
    "Action failed": "action_failed",
    WORKER_LOST: "worker_lost",
    "Result too large": "result_too_large",
    "Expired": "expired",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The end of a run. The constructors below are all the ends that there are."""

    http_status: int  # of a call that waited: 200, 409, 500 or 503
    body: bytes = field(repr=False)  # the envelope, JSON
    status: Literal["succeeded", "failed", "canceled"]
    retryable: bool = False  # the same call may succeed later: an idempotency key starts it again
    reason: str | None = field(default=None, compare=False)  # for the report and the log
    report: Sealed | None = field(default=None, compare=False, repr=False)  # of the last attempt

    @classmethod
    def of(cls, result: object, run_id: str) -> Outcome:
        """What the handler returned; a failure, with its `reason`, where that is no result."""
        if not is_result(result):
            reason = f"the handler returned {_kind(result)}; return ok(...) or fail(...)"
            return replace(cls.failed("Action failed", run_id), reason=reason)
        try:
            body = strict_json.dumps(result.envelope(), _DEPTH)
        except strict_json.NotJson as error:
            return replace(cls.failed("Action failed", run_id), reason=str(error))
        if len(body) > MAX_RESULT_BYTES:
            reason = f"the result has {len(body):,} bytes as JSON, at most {MAX_RESULT_BYTES:,} fit"
            return replace(cls.failed("Result too large", run_id), reason=reason)
        return cls(http_status=200, body=body, status="succeeded" if result.success else "failed")

    @classmethod
    def failed(cls, error: str, run_id: str, *, retryable: bool = False) -> Outcome:
        """Callboard ended the run: 500."""
        return cls(
            http_status=500,
            body=_failure(500, error, run_id),
            status="failed",
            retryable=retryable,
        )

    @classmethod
    def timed_out(cls, timeout: float, run_id: str) -> Outcome:
        """The handler did not end within ``timeout`` seconds: 500."""
        return cls.failed(f"Timed out after {timeout:g} s", run_id)

    @classmethod
    def lost(cls, run_id: str) -> Outcome:
        """Too many workers died with the run: 500, kept for an operator to start it again."""
        return cls.failed(WORKER_LOST, run_id, retryable=True)

    @classmethod
    def unavailable(cls, error: str, run_id: str) -> Outcome:
        """Something that the run stands on is away: 503."""
        return cls(
            http_status=503,
            body=_failure(503, error, run_id),
            status="failed",
            retryable=True,
        )

    @classmethod
    def canceled(cls, run_id: str) -> Outcome:
        """Somebody canceled the run: 409 for a caller who waits."""
        return cls(http_status=409, body=_failure(409, "Canceled", run_id), status="canceled")

    def with_report(self, report: Sealed | None) -> Outcome:
        """This end with what the owner is told of it; None: nothing."""
        return self if report is None else replace(self, report=report)

    def explained(self, text: str) -> Outcome:
        """This failure with ``text`` as its ``debug``: for development only."""
        shown = text[-MAX_DEBUG:].encode(errors="replace").decode()  # the end of a traceback
        return replace(self, body=strict_json.dumps({**self.envelope(), "debug": shown}))

    def to_bytes(self) -> bytes:
        """``<HTTP status> <status> <retryable>`` as a first line, then the body."""
        return f"{self.http_status} {self.status} {int(self.retryable)}\n".encode() + self.body

    @classmethod
    def from_bytes(cls, content: bytes) -> Outcome:
        """The reverse of `to_bytes`."""
        head, _, body = content.partition(b"\n")
        http_status, status, retryable = head.decode().split()
        if status != "succeeded":
            body = _with_code(int(http_status), body)
        return cls(
            http_status=int(http_status),
            body=body,
            status=status,  # type: ignore[arg-type]  # one of the three, as sealed
            retryable=retryable == "1",
        )

    def envelope(self) -> dict[str, Any]:
        """The body, parsed."""
        parsed: dict[str, Any] = strict_json.loads(self.body, _DEPTH)
        return parsed

    def result(self) -> ActionResult[Any]:
        """The body as a result."""
        envelope = self.envelope()
        return (
            ok(envelope.get("data"))
            if envelope["success"]
            else fail(str(envelope["error"]), envelope["code"])
        )

    @property
    def error(self) -> str | None:
        """The failure that the body tells; None for a success."""
        return None if self.status == "succeeded" else str(self.envelope().get("error"))


def _kind(result: object) -> str:
    """What it is, for people; a coroutine is closed: else Python warns that nobody awaited it."""
    if isinstance(result, CoroutineType):
        result.close()
        return f"what {result.__qualname__}() is before it is awaited"
    return "nothing" if result is None else f"a {type(result).__name__}"


def _failure(http_status: int, error: str, run_id: str) -> bytes:
    code = _code_of(http_status, error)
    return strict_json.dumps({"success": False, "error": error, "code": code, "runId": run_id})


def _code_of(http_status: int, error: str) -> str:
    """The code of a failure, from its text where Callboard ended the run."""
    if http_status != 500:
        return _CODES[http_status]
    return "timed_out" if error.startswith("Timed out") else _ENDS.get(error, "action_failed")


def _with_code(http_status: int, body: bytes) -> bytes:
    """The body of a failure; one of an earlier version is given its code."""
    envelope = from_json(body)  # was strict when it was sealed
    if "code" in envelope:
        return body
    code = _code_of(http_status, str(envelope.get("error")))
    first = {"success": False, "error": envelope.get("error"), "code": code}
    return strict_json.dumps({**first, **envelope})
