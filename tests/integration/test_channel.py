"""What a channel has handed out, when it closes."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import redis

from callboard.runs import message
from callboard.runs.message import Wakeup
from worker.pool.channel import Amqp, Channel, Message, Transport

QUEUE = "callboard"


@pytest.fixture
def channel(redis_url: str) -> Iterator[Channel]:
    """One that has handed out a message, as a worker that is about to run it has it."""
    options = {"ack_emulation": False}
    with Amqp.Connection(redis_url, transport=Transport, transport_options=options) as connection:
        channel: Channel = connection.channel()
        text = message.complete(QUEUE, Wakeup("actions.echo", str(uuid4()), "{}"), "signature")
        handed_out = Message(json.loads(text), channel=channel)
        channel.qos.append(handed_out, handed_out.delivery_tag)
        yield channel


def test_it_is_put_back(channel: Channel, redis_client: redis.Redis) -> None:
    channel.close()
    assert redis_client.llen(QUEUE) == 1


def test_what_the_broker_does_not_take_leaves_no_file(
    channel: Channel,
    redis_client: redis.Redis,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    redis_client.set(QUEUE, "no list: nothing can be put back")
    channel.close()
    assert list(tmp_path.iterdir()) == []
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
