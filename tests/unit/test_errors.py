"""The one table from errors to HTTP knows every error that a request can end with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from api.errors import STATUS
from callboard import errors
from callboard.codes import OWN_CODES, TOOL_CODES
from callboard.sdk.results import StopHandler

STAYS_INSIDE = {
    errors.CallboardError,  # the root
    errors.RunRefused,  # an inner node
    errors.ServiceUnavailable,  # an inner node
    errors.ConfigurationError,  # ends a start-up
    errors.InvalidData,  # the tools answer it as a failure
    errors.TransactionConflict,  # ends an attempt of a run
    StopHandler,  # ends a handler
}


def tree(root: type[errors.CallboardError]) -> Iterator[type[errors.CallboardError]]:
    yield root
    for error in root.__subclasses__():
        if error.__module__ in (errors.__name__, StopHandler.__module__):
            yield from tree(error)


@pytest.mark.parametrize("error", sorted(tree(errors.CallboardError), key=lambda e: e.__name__))
def test_every_error_has_a_status_or_a_reason_to_have_none(
    error: type[errors.CallboardError],
) -> None:
    assert (error in STATUS) != (error in STAYS_INSIDE)
    assert error.code in OWN_CODES or error.code in TOOL_CODES
    assert error.__doc__
    assert error.__name__ in (errors.__doc__ or "")
