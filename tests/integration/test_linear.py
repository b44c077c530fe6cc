"""Every parser that meets a request takes linear time: each gets 8 KB of what is worst for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient

KILOBYTES_8 = 8190  # what gunicorn takes of a header's line
SLOWER = 500  # times: what a request may cost at most, against a loop over as many characters

REPEATED = [
    "a", "9", "-", " ", "\t", '"', "\\", '"\\', ",", ";", "=", "/", ".", ":", "%", "&", "[", "(",
    "a,", "a;", "a=", "a, ", " ,", " ;", "a;b=", ';k="', ';k="\\"', ";x*0=", 'W/"', "a;q=1,",
    "utf-8''%", "1.", "a=b&", "%2", "wait=", "../", "bytes=0-,", "\xff",
]  # fmt: skip
BEFORE = ["", '"', 'a="', "a;", "bytes=", 'W/"', "text/html;", "Bearer ", "a.b", "wait=1 "]
AFTER = ["", "!", '"']
SHAPES = [
    (before + part * size)[: size - 1] + after
    for size in (1024, KILOBYTES_8)  # the shorter first: it does not take for ever, whatever it is
    for part in REPEATED
    for before in BEFORE
    for after in AFTER
]

CALL, RUNS, STATIC = "/api/actions/strict", "/api/runs", "/console/console.css"
PLACES = [
    (CALL, "HTTP_PREFER"), (CALL, "HTTP_IDEMPOTENCY_KEY"), (CALL, "HTTP_AUTHORIZATION"),
    (CALL, "CONTENT_TYPE"), (CALL, "HTTP_ACCEPT"), (CALL, "HTTP_COOKIE"), (CALL, "HTTP_HOST"),
    (CALL, "HTTP_TRANSFER_ENCODING"), (CALL, "HTTP_TRACEPARENT"), (CALL, "HTTP_ORIGIN"),
    (CALL, "HTTP_X_FORWARDED_FOR"), (CALL, "HTTP_X_FORWARDED_PREFIX"),
    (RUNS, "QUERY_STRING"), (RUNS, "HTTP_LAST_EVENT_ID"), (RUNS, "HTTP_ACCEPT"),
    (STATIC, "HTTP_IF_NONE_MATCH"), (STATIC, "HTTP_IF_MODIFIED_SINCE"), (STATIC, "HTTP_RANGE"),
    (STATIC, "HTTP_IF_RANGE"), (STATIC, "HTTP_COOKIE"), (STATIC, "HTTP_ACCEPT_ENCODING"),
]  # fmt: skip


def least(times: int, work: Callable[[], object]) -> float:
    """Seconds of processor time of this thread: what else the machine does is not in it."""
    spent = []
    for _ in range(times):
        begun = time.thread_time()
        work()
        spent.append(time.thread_time() - begun)
    return min(spent)


def reference() -> float:
    """What a loop over 8 KB costs on this machine."""
    return least(5, lambda: sum(1 for character in "a" * KILOBYTES_8 if character == ","))


@pytest.mark.parametrize(("path", "variable"), PLACES, ids=str)
def test_no_input_takes_more_than_linear_time(
    api: Callable[..., FlaskClient],
    make_token: Callable[..., str],
    path: str,
    variable: str,
) -> None:
    client = api(
        CALLBOARD_CONSOLE="true",
        CALLBOARD_CORS_ORIGINS="https://app.example.com",
        CALLBOARD_TRUSTED_PROXIES="1",
    )
    token = {"HTTP_AUTHORIZATION": f"Bearer {make_token()}"}

    def send(value: str) -> int:
        given: dict[str, Any] = {**token, variable: value}
        # the params do not fit: all headers are read, and no run comes to be
        with client.open(
            path,
            method="POST" if path == CALL else "GET",
            data=b"{}",
            content_type="application/json",
            environ_overrides=given,
        ) as response:
            return response.status_code

    send("")  # what is made on first use
    limit = SLOWER * reference()
    for shape in SHAPES:
        begun = time.thread_time()
        status = send(shape)
        spent = time.thread_time() - begun
        assert status < 500, shape[:40]
        if spent > limit:  # perhaps by chance: the least of several counts
            assert least(5, lambda shape=shape: send(shape)) < limit, shape[:40]  # type: ignore[misc]
