"""Task events: written while somebody hears them, and only then."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import redis
from scheduled_app import ScheduledApp

from callboard import ActionResult, action, ok
from callboard.registry import Registry
from callboard.runs.message import Wakeup
from worker.celery_app import create_app
from worker.pool.task_events import TaskEvents

WAKEUP = Wakeup("actions.watched", "11111111-1111-4111-8111-111111111111", "{}")


@action
def watched(ctx: Any) -> ActionResult:
    return ok()


def published(client: redis.Redis) -> int:
    """How many messages this server has published since it started."""
    return int(client.info("commandstats").get("cmdstat_publish", {}).get("calls", 0))


def test_nothing_is_written_while_nobody_hears_and_all_once_somebody_does(
    app: ScheduledApp, redis_client: redis.Redis, eventually: Callable[..., None]
) -> None:
    events = TaskEvents(create_app(app.settings, Registry(actions={"watched": watched})), "host")
    before = published(redis_client)
    events.started(WAKEUP)
    eventually(lambda: published(redis_client) == before + 1)  # and nobody heard it
    eventually(lambda: events.is_unheard)
    for _ in range(100):
        events.started(WAKEUP)
    assert events.is_unheard

    with redis_client.pubsub() as listener:
        listener.psubscribe("*celeryev*")
        heard: list[dict[str, Any]] = []

        def hears() -> bool:
            events.started(WAKEUP)
            message = listener.get_message(timeout=0.05)
            if message and message["type"] == "pmessage":
                heard.append(message)
            return bool(heard)

        eventually(hears)
        assert json.loads(heard[0]["data"])["headers"]
        assert not events.is_unheard
