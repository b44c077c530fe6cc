"""What somebody who can write Redis may put where a message is expected: each kind once."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["messages", "obeyed_by_nobody", "published"]

VALUES: list[Any] = [
    *(None, True, 0, -1, 1.5, 10**400, "", "text", "\ud800", "\0", [], [[]], {}, {"a": 1}),
]
BOMB = base64.b64encode(zlib.compress(b"0" * 100_000_000, 9)).decode()  # 130 KB


def messages(written: Callable[[], str]) -> Iterator[bytes]:
    """Texts for a queue's list; ``written``: a message that this application has signed."""
    yield from _no_json()
    for value in VALUES:
        yield _json(value)
    whole = json.loads(written())
    for field in ("headers", "body"):
        yield _json({name: value for name, value in whole.items() if name != field})
        for value in VALUES:
            yield _json({**whole, field: value})
    for header in ("task", "id", "kwargsrepr", "callboard"):
        for value in VALUES:
            yield _json({**whole, "headers": {**whole["headers"], header: value}})
    compressed = {**whole["headers"], "compression": "zlib", "callboard": "f" * 64}
    yield _json({**whole, "headers": compressed, "body": BOMB})
    yield _json({**whole, "body": BOMB})
    yield _json({**whole, "headers": {}, "content-type": "application/x-python-serialize"})


def obeyed_by_nobody(written: str) -> Iterator[bytes]:
    """Messages that are signed, and ask for more than the run."""
    whole = json.loads(written)
    for field in ("content-type", "content-encoding", "properties"):
        yield _json({name: value for name, value in whole.items() if name != field})
        for value in (None, 7, [], "application/x-python-serialize"):
            yield _json({**whole, field: value})
    for name in ("delivery_info", "delivery_tag", "body_encoding", "priority", "reply_to"):
        for value in (None, 7, [], {}, "\ud800"):
            yield _json({**whole, "properties": {**whole["properties"], name: value}})
    for name, value in {
        "compression": "zlib", "eta": "2999-01-01", "expires": "2000-01-01", "retries": "many",
        "timelimit": [0.001, 0.001], "lang": "c", "root_id": [], "group": {}, "argsrepr": 7,
        "callbacks": [{"task": "x"}], "ignore_result": "no",
    }.items():  # fmt: skip
        yield _json({**whole, "headers": {**whole["headers"], name: value}})


def published() -> Iterator[bytes]:
    """Texts for the channel of Celery's remote control."""
    yield from _no_json()
    for value in VALUES:
        yield _json(value)
    yield b"x" * 200_000
    for command in ("shutdown", "pool_shrink", "pool_grow", "pool_restart", "revoke", "terminate",
                    "rate_limit", "time_limit", "autoscale", "add_consumer", "cancel_consumer",
                    "election", "memdump", "no_such_command", "", None, 7, [], {}):  # fmt: skip
        yield _control({"method": command, "arguments": {}})
    arguments = {"task_id": ["1"], "task_name": "actions.echo", "queue": "callboard", "n": 1,
                 "signal": "KILL", "rate_limit": "1/h", "max": 0, "min": 0}  # fmt: skip
    for command in (
        "shutdown",
        "revoke",
        "terminate",
        "rate_limit",
        "cancel_consumer",
        "autoscale",
    ):
        yield _control({"method": command, "arguments": arguments})
    for value in VALUES:
        yield _control(value)
        yield _control({"method": "ping", "arguments": value})
        yield _control({"method": "ping", "reply_to": value, "ticket": value})
        yield _control({"method": "stats", "destination": value, "pattern": "x", "matcher": value})
    yield _json({**_envelope(""), "headers": {"compression": "zlib"}, "body": BOMB})
    for field in ("headers", "properties", "content-type", "content-encoding", "body"):
        for value in VALUES:
            yield _json({**_envelope("e30="), field: value})


def _no_json() -> Iterator[bytes]:
    yield from (b"", b" ", b"\xff\xfe\x00", b"{", b"not JSON", b"NaN", b"\x80\x04N.")
    yield from (b"[" * 100_000, b'{"a":' * 50_000, b"9" * 5_000, b'"\\ud800"', b'{"headers":')


def _control(body: Any) -> bytes:
    return _json(_envelope(base64.b64encode(_json(body)).decode()))


def _envelope(body: str) -> dict[str, Any]:
    return {
        "body": body,
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"clock": 1, "expires": 9e9},
        "properties": {
            "delivery_mode": 2,
            "delivery_info": {"exchange": "celery.pidbox", "routing_key": ""},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": "tag",
        },
    }


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()
