"""Many runs accepted at once, in packets: each has its own answer, whatever happens meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
import redis
from faces import LoopThread

from callboard import ActionResult, action, ok
from callboard.connections.redis import PACKET, connect_async
from callboard.runs import message
from callboard.runs.commands import Accepted
from callboard.runs.seal import Call
from callboard.runs.start import Start
from callboard.runs.store import Runs
from callboard.settings import Settings
from callboard.strict_json import NotJson
from worker.loop.runs import AsyncRuns

MANY = 2 * PACKET + 7
LIMITS = {"max_queue": 1_000, "result_ttl": 60}

AcceptMany = Callable[[list[Start]], list[Any]]


@action
def work(ctx: Any) -> ActionResult:
    return ok()


def starts(number: int = MANY) -> list[Start]:
    return [
        Start(run_id=str(uuid4()), action=work, call=Call(caller="alice", parent="p", depth=1))
        for _ in range(number)
    ]


def queued(client: redis.Redis) -> list[str]:
    """The oldest first."""
    read = [message.read(text) for text in reversed(client.lrange("callboard", 0, -1))]
    return [known[0].run_id for known in read if known]


@pytest.fixture(params=["plain", "async"])
def accept_many(
    request: pytest.FixtureRequest,
    runs: Runs,
    variables: dict[str, str],
    loop_thread: LoopThread,
) -> Iterator[AcceptMany]:
    """Those of plain code, and of an event loop."""
    if request.param == "plain":
        yield lambda starts: runs.accept_many(starts, **LIMITS)
        return
    client = connect_async(Settings(**variables))
    loops = AsyncRuns(client, runs.sealer, runs.keys)
    yield lambda starts: loop_thread.run(loops.accept_many(starts, **LIMITS))
    loop_thread.run(client.aclose())


def test_all_are_accepted_once_and_queued_in_their_order(
    accept_many: AcceptMany, redis_client: redis.Redis
) -> None:
    made = starts()
    ids = [start.run_id for start in made]
    for _ in range(2):  # the second time, all are there
        assert accept_many(made) == [Accepted(run_id, joined=False) for run_id in ids]
    assert queued(redis_client) == ids


def test_a_server_that_has_forgotten_the_scripts_is_told_them(
    accept_many: AcceptMany, redis_client: redis.Redis
) -> None:
    accept_many(starts(1))
    redis_client.script_flush()
    made = starts()
    assert [answer.run_id for answer in accept_many(made)] == [start.run_id for start in made]
    assert len(queued(redis_client)) == MANY + 1


def test_a_connection_that_has_died_is_no_refusal(
    accept_many: AcceptMany, redis_client: redis.Redis
) -> None:
    accept_many(starts(1))
    redis_client.client_kill_filter(_type="normal", skipme=False)
    made = starts()
    assert [answer.run_id for answer in accept_many(made)] == [start.run_id for start in made]
    assert len(queued(redis_client)) == MANY + 1


def test_none_at_all(accept_many: AcceptMany) -> None:
    assert accept_many([]) == []


def test_answers_that_nobody_read_are_not_the_next_ones(
    accept_many: AcceptMany, redis_client: redis.Redis
) -> None:
    made = starts()
    broken = Start(run_id=str(uuid4()), action=work, call=Call(caller="a", params={"x": object()}))
    with pytest.raises(NotJson):
        accept_many([*made, broken])
    following = starts(3)
    assert [one.run_id for one in accept_many(following)] == [one.run_id for one in following]
