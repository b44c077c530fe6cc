"""Faults: which errors of PyMongo end the attempt, and which are a tool call's failure."""

from __future__ import annotations

import time

import pytest
from pymongo import errors

from callboard.errors import DatabaseUnavailable, TransactionConflict
from worker.tools.deadline import time_left, within
from worker.tools.faults import outage, refusal


def refused(code, **details):
    return errors.OperationFailure("secret text", code, {"code": code, **details})


def transient():
    return refused(251, errorLabels=["TransientTransactionError"])


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errors.AutoReconnect("secret"), DatabaseUnavailable),
        (errors.NetworkTimeout("secret"), DatabaseUnavailable),
        (errors.NotPrimaryError("secret"), DatabaseUnavailable),
        (errors.ServerSelectionTimeoutError("secret"), DatabaseUnavailable),
        (errors.ExecutionTimeout("secret", 50), DatabaseUnavailable),
        (errors.WTimeoutError("secret", 64), DatabaseUnavailable),
        (errors.WriteConcernError("secret", 100), DatabaseUnavailable),
        (refused(18), DatabaseUnavailable),
        (refused(14031), DatabaseUnavailable),
        (refused(112), TransactionConflict),
        (transient(), TransactionConflict),
    ],
)
def test_what_ends_the_attempt(error, kind):
    assert type(outage(error)) is kind
    assert "secret" not in str(outage(error))


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            errors.DuplicateKeyError("secret", 11000, {"keyPattern": {"data.a": 1, "_id": 1}}),
            "Duplicate: another record has the same a and _id",
        ),
        (
            errors.DuplicateKeyError("secret", 11000, None),
            "Duplicate: another record has the same unique value",
        ),
        (errors.DocumentTooLarge("secret"), "Record too large: "),
        (errors.WriteError("secret", 10334, {}), "Record too large: "),
        (refused(292, codeName="QueryExceededMemory"), "Refused by the database: QueryExceeded"),
        (errors.InvalidOperation("secret"), "Refused by the database: InvalidOperation"),
    ],
)
def test_what_is_a_failure(error, told):
    assert outage(error) is None
    assert refusal(error).error.startswith(told)
    assert "secret" not in refusal(error).error


def test_a_deadline_that_passed_is_an_outage():
    past = time.monotonic() - 1
    with pytest.raises(DatabaseUnavailable, match="No time"), within(past):
        pytest.fail("it was entered")


def test_no_deadline_is_no_bound():
    assert time_left(None) == float("inf")
    with within(None):
        pass
