"""The message that Callboard writes is the one that the installed Celery would write."""

from __future__ import annotations

import json
from typing import Any

import pytest
import redis
from celery import Celery

from callboard.runs import message
from callboard.runs.format import PLAIN


def test_it_is_celerys_message_without_content(redis_client: redis.Redis, redis_url: str) -> None:
    run_id = "11111111-1111-4111-8111-111111111111"
    with Celery(broker=redis_url, set_as_current=False) as app:
        app.conf.task_default_queue = "theirs"
        app.send_task(
            "actions.noop", task_id=run_id, argsrepr="()", kwargsrepr="{}", ignore_result=True
        )
    theirs = json.loads(redis_client.lindex("theirs", 0) or b"")
    wakeup = message.Wakeup("actions.noop", run_id, "{}")
    ours = json.loads(message.write("theirs", wakeup, "t"))

    assert ours["headers"].items() <= message.headers(wakeup, "t").items()
    ours["headers"] = message.headers(wakeup, "t")  # as a worker completes them
    assert ours["body"] == theirs["body"]
    assert set(ours) == set(theirs)
    assert ours["headers"].pop(message.SIGNATURE_HEADER) == "t"
    assert ours["headers"].pop(message.VERSION_HEADER) == PLAIN
    assert _common(ours["headers"], theirs["headers"]) == ours["headers"]
    assert ours["properties"].pop("delivery_tag") == run_id
    ours["properties"]["delivery_info"].pop("exchange")
    assert ours["properties"]["delivery_info"]["routing_key"] == "theirs"
    del ours["properties"]["delivery_info"]
    assert _common(ours["properties"], theirs["properties"]) == ours["properties"]


def _common(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    return {name: theirs[name] for name in ours if name in theirs}


def test_what_was_written_is_read() -> None:
    wakeup = message.Wakeup("actions.noop", "1", "{a: ***}")
    assert message.read(message.write("q", wakeup, "t").encode()) == (wakeup, "t")


@pytest.mark.parametrize(
    "change",
    [
        {"body": "W10="},
        {"headers": None},
        {"headers": {"task": "actions.noop", "id": "1"}},
        {"headers": {"task": "actions.noop", "id": 1, "kwargsrepr": "{}"}},
    ],
)
def test_what_is_not_like_ours_says_nothing(change: dict[str, Any]) -> None:
    ours = json.loads(message.write("q", message.Wakeup("actions.noop", "1", "{}"), "t"))
    assert message.read(json.dumps({**ours, **change}).encode()) is None


@pytest.mark.parametrize("text", [b"", b"nonsense", b"[]", b"1", b"\xff", b"[" * 100_000])
def test_no_text_is_too_odd_to_read(text: bytes) -> None:
    assert message.read(text) is None
