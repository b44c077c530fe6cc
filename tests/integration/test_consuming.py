"""What a child does between two runs, without Celery around it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
import redis
from scheduled_app import ScheduledApp

from callboard import ActionResult, action, ok
from callboard.registry import Registry
from callboard.runs import message
from callboard.runs.seal import Call
from callboard.runs.store import Runs
from callboard.sdk.action import Action
from worker.celery_app import create_app
from worker.runs.consuming import consume
from worker.runs.execution import execute
from worker.services import Services

HAPPENED: list[str] = []


@action
def closing(ctx: Any) -> ActionResult:
    """A worker is told to stop while this goes on."""
    HAPPENED.append("handler")
    return ok()


@action
async def wait_for_it(ctx: Any) -> ActionResult:
    return ok()


ACTIONS = {"closing": closing, "waitForIt": wait_for_it}


@pytest.fixture
def services(app: ScheduledApp) -> Services:
    HAPPENED.clear()
    return Services(app.settings, Registry(actions=ACTIONS))


def accept(runs: Runs, action: Action[Any] = closing) -> str:
    call = Call(caller="alice")
    return runs.accept(str(uuid4()), action, call, max_queue=10, result_ttl=60).run_id


def test_whether_to_go_on_is_asked_when_the_run_has_ended(
    services: Services, redis_client: redis.Redis
) -> None:
    first, following = accept(services.runs), accept(services.runs)
    redis_client.rpop("callboard")

    def no_queues() -> tuple[str, ...]:
        HAPPENED.append("asked")
        return ()

    delivered = execute(services, closing, first, no_queues)
    assert (delivered.end, delivered.receive) == ("succeeded", None)
    assert HAPPENED == ["handler", "asked"]
    assert following.encode() in b"".join(redis_client.lrange("callboard", 0, -1))


def test_nothing_is_in_hand_while_a_message_is_waited_for(services: Services) -> None:
    services.scoreboard.begin()
    first = accept(services.runs)
    delivered = execute(services, closing, first, lambda: ("empty",))
    assert services.scoreboard.all() == []
    assert delivered.receive is not None
    assert delivered.receive() is None


def test_a_message_for_an_ended_run_changes_nothing(services: Services) -> None:
    first = accept(services.runs)
    for expected in ("succeeded", None):
        assert execute(services, closing, first, tuple).end == expected
    assert HAPPENED == ["handler"]


def test_a_message_that_comes_after_the_stop_goes_back_to_the_queues_front(
    app: ScheduledApp,
    redis_client: redis.Redis,
    eventually: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    HAPPENED.clear()
    monkeypatch.setattr("callboard.runs.store.WAIT_SECONDS", 1.0)  # time enough for `eventually`
    celery = create_app(app.settings, Registry(actions=ACTIONS))
    services = celery.services
    first = accept(services.runs)
    redis_client.rpop("callboard")

    def stop_while_it_waits() -> None:
        eventually(lambda: redis_client.info("clients")["blocked_clients"])
        services.scoreboard.close()
        accept(services.runs)

    stopping = threading.Thread(target=stop_while_it_waits)
    stopping.start()
    consume(celery, "worker@here", message.Wakeup("actions.closing", first, "{}"))
    stopping.join()
    assert HAPPENED == ["handler"]
    assert redis_client.llen("callboard") == 1


def test_a_wake_up_of_an_async_action_goes_on_to_its_own_queue(
    app: ScheduledApp, redis_client: redis.Redis
) -> None:
    """The action was plain when the run was accepted: a child has no event loop for it."""
    HAPPENED.clear()
    celery = create_app(app.settings, Registry(actions=ACTIONS))
    run_id = accept(celery.services.runs, wait_for_it)
    accepted = redis_client.rpop("callboard.async")
    following = accept(celery.services.runs)
    consume(celery, "worker@here", message.Wakeup("actions.waitForIt", run_id, "{}"))
    assert HAPPENED == ["handler"], "the turn goes on"
    assert redis_client.lrange("callboard.async", 0, -1) == [accepted]
    assert celery.services.runs.read(run_id).status == "queued"
    assert celery.services.runs.read(following).status == "succeeded"
