"""The codes of failures: what programs tell a failure by, as people do by its text."""

from __future__ import annotations

import re

__all__ = ["FAILED", "OWN_CODES", "TOOL_CODES", "checked_code", "is_code"]

_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")

FAILED = "failed"  # of a handler's failure that names none

OWN_CODES = {
    # refused before a run exists
    "unauthorized": "no token, or a bad one",
    "forbidden": "for the owner only",
    "unknown_action": "no action has this name",
    "not_found": "unknown, or not the caller's",
    "bad_request": "the request cannot be read; another method, or another type of content",
    "too_large": "the body, or the head of the request, is too large",
    "invalid_params": "the params do not fit the action's model",
    "key_reused": "the idempotency key was used with another body",
    "rate_limited": "too many calls, requests or connections",
    "queue_full": "too many runs wait already",
    "conflict": "the run is in no state for what is asked",
    "unavailable": "something that Callboard stands on is away",
    "internal_error": "a fault of Callboard's own; the log has it",
    # of a run
    "wait_over": "the caller's wait ran out; the run goes on",
    "canceled": "somebody canceled the run",
    "action_failed": "the handler raised, or returned what is no result",
    "timed_out": "the handler was stopped at the end of its time",
    "worker_lost": "too many workers died with the run",
    "result_too_large": "the result is over 1 MiB",
    "expired": "the run did not start within a day of when it was due",
    "unreadable": "the run was sealed with a key that is gone, or was altered",
}
"""Those that Callboard itself answers with, and when. A handler may use them, too."""

TOOL_CODES = {
    "not_found": "no such record",
    "invalid_data": "a name, a value or a filter that no tool accepts",
    "duplicate": "a unique index has the value already",
    "too_large": "the record is over 16 MB, or a query without a limit matches over 10,000",
    "refused": "the database refused the operation",
    "unauthorized": "an anonymous caller, where one is needed",
    "upstream_failed": "an integration answered no success, or not at all",
}
"""Those of the failures that the tools answer with, and when."""


def is_code(code: object) -> bool:
    """Whether it may be the code of a failure."""
    return isinstance(code, str) and _CODE.fullmatch(code) is not None


def checked_code(code: str) -> str:
    """The code; raises ValueError for what is none."""
    if is_code(code):
        return code
    raise ValueError(f"code: {code!r:.80} is none: a letter a-z, then up to 63 of a-z, 0-9 and _")
