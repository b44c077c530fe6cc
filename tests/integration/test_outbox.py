"""The outbox: what is committed is started once, whoever dies and whatever Redis loses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import redis
from ended_runs import ACTIONS, finish, work
from pymongo import MongoClient
from pymongo.database import Database

from callboard.connections.keys import Keys
from callboard.connections.mongodb import Store
from callboard.registry import Registry
from callboard.runs.history import History
from callboard.runs.outbox import OUTBOX, Outbox, Row
from callboard.runs.outcome import Outcome
from callboard.runs.seal import Call
from callboard.runs.start import Start, Terms
from callboard.runs.store import Runs
from callboard.settings import Settings
from worker.archive.archiver import Archiver
from worker.outbox.publisher import Publisher
from worker.services import Services

KEYS = Keys()
FAR = timedelta(hours=3)


@pytest.fixture
def services(variables: dict[str, str], mongodb_uri: str) -> Iterator[Services]:
    registry = Registry(actions={action.name: action for action in ACTIONS})
    services = Services(Settings(**{**variables, "SECRET_KEY": "k" * 40}), registry)
    services.store = Store(mongodb_uri)
    yield services
    services.runs.close()
    services.store.close()


@pytest.fixture
def make_publisher(services: Services) -> Iterator[Callable[[], Publisher]]:
    made: list[Publisher] = []

    def make() -> Publisher:
        made.append(Publisher(services))
        return made[-1]

    yield make
    for publisher in made:
        publisher._runs.close()


@pytest.fixture
def publisher(make_publisher: Callable[[], Publisher], redis_client: redis.Redis) -> Publisher:
    """One that has seen that Redis is in order."""
    publisher = make_publisher()
    publisher.turn()
    return publisher


@pytest.fixture
def outbox(services: Services) -> Outbox:
    return Outbox(services.store.database, services.sealer)


def a_row(due: timedelta | None = None, **terms: Any) -> Row:
    start = Start(
        run_id=str(uuid4()),
        action=work,
        call=Call(caller="alice", params={"canary": "canary-param"}, jwt="canary-jwt"),
        terms=Terms(**terms),
    )
    return Row(start=start, due=due and datetime.now(UTC) + due)


def queued(client: redis.Redis) -> int:
    return len(client.lrange("callboard", 0, -1))


def ids(database: Database[Any]) -> list[str]:
    return [row["_id"] for row in database[OUTBOX].find()]


def test_what_is_committed_is_published_by_the_next_turn_and_the_row_goes(
    outbox: Outbox, publisher: Publisher, runs: Runs, database: Database[Any]
) -> None:
    row = a_row()
    outbox.put([row])
    assert "canary" not in str(database[OUTBOX].find_one())
    assert publisher.turn() == 1
    record = runs.read(row.start.run_id)
    assert record is not None
    assert (record.status, record.call) == ("queued", row.start.call)
    assert publisher.turn() == 0
    assert ids(database) == []


def test_a_row_lives_and_dies_with_its_transaction(
    outbox: Outbox,
    publisher: Publisher,
    runs: Runs,
    services: Services,
    database: Database[Any],
    redis_client: redis.Redis,
) -> None:
    client: MongoClient[Any] = services.store.database().client
    kept, dropped = a_row(), a_row()
    with client.start_session() as session:
        session.start_transaction()
        outbox.put([dropped], session)
        publisher.turn()
        session.abort_transaction()
        session.start_transaction()
        outbox.put([kept], session)
        assert publisher.turn() == 0
        session.commit_transaction()
    publisher.turn()
    assert runs.present([kept.start.run_id, dropped.start.run_id]) == {kept.start.run_id}
    assert queued(redis_client) == 1


def test_two_publishers_at_once_start_each_run_once(
    outbox: Outbox, make_publisher: Callable[[], Publisher], redis_client: redis.Redis
) -> None:
    rows = [a_row() for _ in range(60)]
    outbox.put(rows)
    both, failed = [make_publisher() for _ in range(2)], []
    gate = threading.Barrier(2)

    def turns(publisher: Publisher) -> None:
        try:
            gate.wait(10)
            while publisher.turn():
                pass
        except BaseException as error:  # noqa: BLE001 - told below
            failed.append(error)

    threads = [threading.Thread(target=turns, args=(publisher,)) for publisher in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failed == []
    assert queued(redis_client) == len(rows)


def test_a_run_that_has_ended_is_not_started_again(
    outbox: Outbox,
    publisher: Publisher,
    runs: Runs,
    archiver: Archiver,
    redis_client: redis.Redis,
    database: Database[Any],
) -> None:
    row = a_row()
    outbox.put([row])
    publisher.turn()
    finish(runs, row.start.run_id)
    archiver.turn()
    redis_client.delete(KEYS.run(row.start.run_id))  # its time to live is over
    redis_client.delete("callboard")
    outbox.put([row])  # by its parent's rerun
    publisher.turn()
    assert queued(redis_client) == 0
    assert ids(database) == []


def test_what_waits_for_long_survives_the_loss_of_redis(
    outbox: Outbox,
    publisher: Publisher,
    make_publisher: Callable[[], Publisher],
    runs: Runs,
    redis_client: redis.Redis,
    database: Database[Any],
) -> None:
    row = a_row(FAR)
    outbox.put([row])
    publisher.turn()
    before = runs.read(row.start.run_id)
    assert before is not None
    assert before.status == "waiting"
    assert ids(database) == [row.start.run_id]
    assert publisher.turn() == 0  # it is known, and not due
    redis_client.flushdb()
    assert make_publisher().turn() == 0
    after = runs.read(row.start.run_id)
    assert after is not None
    assert before.due is not None
    assert after.due is not None
    assert abs(after.due - before.due) < 60_000
    assert after.call == row.start.call


def test_the_row_goes_when_the_run_is_due(
    outbox: Outbox, publisher: Publisher, database: Database[Any]
) -> None:
    row = a_row(FAR)
    outbox.put([row])
    publisher.turn()
    database[OUTBOX].update_one({}, {"$set": {"next": datetime.now(UTC), "due": datetime.now(UTC)}})
    publisher.turn()
    assert ids(database) == []


def test_whatever_ends_the_run_before_takes_the_row_along(
    outbox: Outbox,
    publisher: Publisher,
    runs: Runs,
    archiver: Archiver,
    history: History,
    database: Database[Any],
) -> None:
    canceled, other = a_row(FAR), a_row(FAR)
    outbox.put([canceled, other])
    publisher.turn()
    run_id = canceled.start.run_id
    runs.cancel(run_id, "work", Outcome.canceled(run_id))
    archiver.turn()
    assert history.find(run_id) is not None
    assert ids(database) == [other.start.run_id]


def test_a_full_queue_keeps_its_rows_and_holds_no_other_up(
    outbox: Outbox,
    publisher: Publisher,
    services: Services,
    redis_client: redis.Redis,
    database: Database[Any],
) -> None:
    row, later = a_row(), a_row(FAR)
    redis_client.lpush("callboard", *range(services.settings.max_queue))
    outbox.put([row, later])
    publisher.turn()
    assert sorted(ids(database)) == sorted([row.start.run_id, later.start.run_id])
    assert redis_client.zcard(KEYS.due) == 1
    redis_client.delete("callboard")
    database[OUTBOX].update_many({}, {"$set": {"next": datetime.now(UTC)}})  # a second later
    publisher.turn()
    assert ids(database) == [later.start.run_id]


def test_what_cannot_be_read_here_is_left_and_holds_no_other_up(
    outbox: Outbox, publisher: Publisher, redis_client: redis.Redis, database: Database[Any]
) -> None:
    foreign, good = a_row(), a_row()
    outbox.put([foreign])
    database[OUTBOX].update_one({}, {"$set": {"call": b"altered"}})
    outbox.put([good])
    database[OUTBOX].insert_one({"_id": "x", "action": "ofANewerWorker", "next": datetime.now(UTC)})
    assert publisher.turn() == 3
    assert publisher.turn() == 0
    assert queued(redis_client) == 1
    assert sorted(ids(database)) == sorted([foreign.start.run_id, "x"])


SPOILED = [
    *({"due": value} for value in (7, "soon", [])),
    *({"call": value} for value in (None, 2**40, "text", [1])),
    *({"action": value} for value in (7, [], {"$gt": ""})),
    *({"group": value} for value in (7, [], {})),
    *({"size": value} for value in ("many", [], 1.5)),
    *({"idempotency": value} for value in (7, [1, 2], ["one"])),
]


def test_a_spoiled_row_costs_itself(
    outbox: Outbox, publisher: Publisher, redis_client: redis.Redis, database: Database[Any]
) -> None:
    rows = [a_row(FAR) for _ in SPOILED]
    outbox.put(rows)
    for row, change in zip(rows, SPOILED, strict=True):
        database[OUTBOX].update_one({"_id": row.start.run_id}, {"$set": change})
    for run_id in (7, {"a": 1}):
        database[OUTBOX].insert_one({"_id": run_id, "action": "work", "next": datetime.now(UTC)})
    outbox.put([a_row()])
    assert publisher.turn() == len(SPOILED) + 1
    assert publisher.turn() == 0
    assert queued(redis_client) == 1


def test_another_time_is_the_rows_too(outbox: Outbox, database: Database[Any]) -> None:
    row = a_row(FAR)
    outbox.put([row])
    later = Row(start=row.start, due=datetime.now(UTC) + 2 * FAR)
    outbox.reschedule(later, add=False)
    [document] = database[OUTBOX].find()
    assert document["due"] > datetime.now(UTC) + 1.9 * FAR
    outbox.reschedule(a_row(FAR), add=False)
    assert ids(database) == [row.start.run_id]
    outbox.reschedule(new := a_row(FAR), add=True)
    assert new.start.run_id in ids(database)
