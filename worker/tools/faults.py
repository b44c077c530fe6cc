"""Faults: what an error of PyMongo means to a run.

Either the database refused a value, which is the tool call's failure; or the database is away
or another transaction was faster, which ends the attempt as retryable.
"""

from __future__ import annotations

from pymongo.errors import (
    ConnectionFailure,
    DocumentTooLarge,
    DuplicateKeyError,
    ExecutionTimeout,
    OperationFailure,
    PyMongoError,
    WriteConcernError,
)

from callboard.errors import DatabaseUnavailable, ServiceUnavailable, TransactionConflict
from callboard.sdk.results import ActionResult, fail

__all__ = ["DATABASE_ERRORS", "DatabaseError", "outage", "refusal"]

DatabaseError = PyMongoError | DocumentTooLarge

DATABASE_ERRORS = (PyMongoError, DocumentTooLarge)
"""What PyMongo raises. It checks sizes before it sends, with an error outside its own tree."""

TRANSIENT = "TransientTransactionError"

_WRITE_CONFLICT = 112
_TOO_LARGE = {10334, 17419, 17420}  # BSONObjectTooLarge, and older servers' codes for it
_AWAY = {
    13,  # Unauthorized
    18,  # AuthenticationFailed
    24,  # LockTimeout
    262,  # ExceededTimeLimit
    11601,  # Interrupted
    14031,  # OutOfDiskSpace
}


def outage(error: DatabaseError) -> ServiceUnavailable | None:
    """What ends the attempt, if the error is no answer to the operation itself.

    A timeout counts as away: whether the write took place is then unknown.
    """
    if isinstance(error, DocumentTooLarge):
        return None
    code = getattr(error, "code", None)
    if isinstance(error, OperationFailure) and (
        error.has_error_label(TRANSIENT) or code == _WRITE_CONFLICT
    ):
        return TransactionConflict("Another writer changed the same records; try again")
    lost = isinstance(error, ConnectionFailure | ExecutionTimeout | WriteConcernError)
    if lost or error.timeout or code in _AWAY:
        return DatabaseUnavailable("The database does not answer")
    return None


def refusal(error: DatabaseError) -> ActionResult:
    """The failure of a tool call whose operation the database refused."""
    if isinstance(error, DuplicateKeyError):
        return fail(f"Duplicate: {_duplicate(error)}", "duplicate")
    if isinstance(error, DocumentTooLarge) or getattr(error, "code", None) in _TOO_LARGE:
        return fail("Record too large: MongoDB holds at most 16 MB in one", "too_large")
    name = (error.details or {}).get("codeName") if isinstance(error, OperationFailure) else None
    return fail(f"Refused by the database: {name or type(error).__name__}", "refused")


def _duplicate(error: DuplicateKeyError) -> str:
    fields = [
        field.removeprefix("data.") for field in (error.details or {}).get("keyPattern") or ()
    ]
    same = " and ".join(fields) or "unique value"
    return f"another record has the same {same}"
