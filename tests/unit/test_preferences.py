"""The Prefer header, as clients and proxies write it (RFC 7240)."""

import pytest

from api.call.preferences import Preferences, read_preferences
from callboard.errors import BadRequest


@pytest.mark.parametrize(
    ("header", "wait", "respond_async"),
    [
        (None, None, False),
        ("", None, False),
        ("wait=10", 10, False),
        ("Wait = 0", 0, False),
        ('wait="7"', 7, False),
        ("respond-async", None, True),
        ("respond-async, wait=5", 5, True),
        ("wait=5;x=y, Respond-Async", 5, True),
        ("wait=3, wait=9", 3, False),
        ("wait=0000000000007", 7, False),
        ("wait=" + "9" * 8000, 10**9, False),
        ("handling=lenient, wait=2", 2, False),
        ("foo; bar=1", None, False),
        ("waiter=2", None, False),
        ('a="b, wait=3", wait=4', 4, False),
        ("a" * 8000 + ", wait=4", 4, False),
        ("wait=4;" + "x" * 8000, 4, False),
    ],
)
def test_it_is_read(header: str | None, wait: int | None, respond_async: bool) -> None:
    assert read_preferences(header) == Preferences(wait=wait, respond_async=respond_async)


@pytest.mark.parametrize(
    "header", ["wait", "wait=", "wait=soon", "wait=-1", "wait=1.5", "wait=1e3"]
)
def test_a_wait_that_is_no_whole_number_is_refused(header: str) -> None:
    with pytest.raises(BadRequest, match="wait"):
        read_preferences(header)


def test_a_header_without_end_is_refused() -> None:
    with pytest.raises(BadRequest, match="8192"):
        read_preferences("a," * 5000)
