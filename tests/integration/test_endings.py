"""A run always ends, whatever is raised on its way and whatever lies in its record."""

from __future__ import annotations

import json
import time
from contextlib import nullcontext
from typing import Any
from uuid import uuid4

import pytest
from scheduled_app import STARTED, ScheduledApp, work

from callboard import ActionContext, ActionResult, action as declared, ok
from callboard.runs.outcome import WORKER_LOST, Outcome
from callboard.runs.record import RunRecord
from callboard.runs.scripts import MAX_LOST
from callboard.runs.seal import Call
from worker.runs import execution, handling, lifecycle
from worker.runs.execution import execute
from worker.tools.deadline import within

LEASE = 5.0

UNREADABLE = {
    "nested too deep": b'{"params":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "not JSON": b"\xff\xfe",
    "null": b"null",
    "a list": b"[1, 2]",
    "no caller": b"{}",
    "params that are no object": b'{"caller": "alice", "params": [1]}',
    "an expiry that is no number": b'{"caller": "alice", "expires": "soon"}',
    "claims that are none": b'{"caller": "alice", "claims": 7, "acceptance": 7}',
    "a number without end": b'{"caller": "alice", "expires": ' + b"9" * 5000 + b"}",
}


def accept(app: ScheduledApp, **options: Any) -> str:
    given = {"max_queue": 100, "result_ttl": 60, **options}
    return app.services().runs.accept(str(uuid4()), work, Call(caller="alice"), **given).run_id


def record(app: ScheduledApp, run_id: str) -> RunRecord:
    found = app.services().runs.read(run_id)
    assert found is not None
    return found


def alter(app: ScheduledApp, run_id: str, **fields: Any) -> None:
    app.redis.hset(f"callboard:run:{run_id}", mapping=fields)


def ended(app: ScheduledApp, run_id: str) -> dict[bytes, bytes]:
    """The record, which says that the run has ended."""
    fields: dict[bytes, bytes] = app.redis.hgetall(f"callboard:run:{run_id}")
    assert fields[b"status"] in (b"failed", b"canceled")
    assert app.redis.zscore("callboard:open", run_id) is None
    return fields


class TestWhatCannotBeOpened:
    @pytest.mark.parametrize("kind", UNREADABLE)
    def test_ends_at_once(self, app: ScheduledApp, kind: str) -> None:
        run_id = accept(app)
        sealed = app.services().sealer.seal("call", run_id, "work", UNREADABLE[kind])
        alter(app, run_id, seal=sealed)
        app.work()
        ended(app, run_id)
        assert app.services().runs.results([run_id])

    @pytest.mark.parametrize("seal", [b"", b"\x01", b"x" * 100, b"\x01" + b"\0" * 1000])
    def test_a_seal_that_is_none_ends_at_once(self, app: ScheduledApp, seal: bytes) -> None:
        run_id = accept(app)
        alter(app, run_id, seal=seal)
        assert app.work() == []
        ended(app, run_id)

    def test_a_call_that_is_gone_ends_at_once(self, app: ScheduledApp) -> None:
        run_id = accept(app)
        app.redis.hdel(f"callboard:run:{run_id}", "seal")
        assert app.work() == []
        ended(app, run_id)

    @pytest.mark.parametrize("error", [MemoryError, RecursionError, KeyboardInterrupt, OSError])
    @pytest.mark.parametrize("step", ["build_context", "take_fire", "_opened"])
    def test_whatever_is_raised_on_the_way_to_the_handler(
        self, app: ScheduledApp, monkeypatch: pytest.MonkeyPatch, step: str,
        error: type[BaseException],
    ) -> None:  # fmt: skip
        def fail(*_: Any) -> None:
            raise error

        module = {"_opened": lifecycle, "build_context": handling}.get(step, execution)
        monkeypatch.setattr(module, step, fail)
        run_id = accept(app)
        assert app.work() == []
        assert record(app, run_id).error == "Action failed"


@pytest.mark.parametrize("transaction", [False, True])
@pytest.mark.parametrize("error", [GeneratorExit, StopIteration, SystemExit, KeyboardInterrupt])
def test_whatever_a_handler_raises_ends_its_run(
    app: ScheduledApp, error: type[BaseException], transaction: bool
) -> None:
    @declared("work", transaction=transaction)
    def raises(ctx: ActionContext) -> ActionResult:
        raise error

    services, call = app.services(), Call(caller="alice")
    options: dict[str, Any] = {"max_queue": 100, "result_ttl": 60}
    run_id = services.runs.accept(str(uuid4()), raises, call, **options).run_id
    execute(services, raises, run_id, tuple)
    assert record(app, run_id).error == "Action failed"


class Wordless(Exception):
    """Its text raises."""

    raised: type[BaseException] = GeneratorExit

    def __str__(self) -> str:
        raise self.raised


@pytest.mark.parametrize("error", [GeneratorExit, SystemExit])
@pytest.mark.parametrize("place", ["error", "key"])
def test_whatever_the_text_of_an_object_raises_ends_its_run(
    app: ScheduledApp, place: str, error: type[BaseException]
) -> None:
    wordless = type("Wordless", (Wordless,), {"raised": error})()

    @declared("work")
    def hands_it_over(ctx: ActionContext) -> ActionResult:
        if place == "error":
            raise wordless
        return ok({wordless: 1})

    services, call = app.services(), Call(caller="alice")
    options: dict[str, Any] = {"max_queue": 100, "result_ttl": 60}
    run_id = services.runs.accept(str(uuid4()), hands_it_over, call, **options).run_id
    execute(services, hands_it_over, run_id, tuple)
    assert record(app, run_id).error == "Action failed"


class TestLosses:
    def lose(self, app: ScheduledApp, run_id: str, times: int) -> None:
        """Let workers die with it that never got to say so."""
        for number in range(times):
            app.services().runs.claim(run_id, "work", f"dead:{number}", LEASE)
            alter(app, run_id, lease=1)

    def test_a_run_that_kills_its_opener_is_ended_unopened(
        self, app: ScheduledApp, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run_id = accept(app)
        self.lose(app, run_id, MAX_LOST)
        monkeypatch.setattr(lifecycle, "_opened", pytest.fail)
        assert app.work() == []
        found = record(app, run_id)
        assert (found.error, found.lost, found.attempt) == (WORKER_LOST, MAX_LOST, MAX_LOST)

    def test_the_limit_is_the_records(self, app: ScheduledApp) -> None:
        run_id = accept(app)
        alter(app, run_id, max_lost=1)
        self.lose(app, run_id, 1)
        assert app.work() == []
        assert record(app, run_id).error == WORKER_LOST

    def test_a_record_without_a_limit_has_the_usual_one(self, app: ScheduledApp) -> None:
        run_id = accept(app)
        app.redis.hdel(f"callboard:run:{run_id}", "max_lost")
        self.lose(app, run_id, MAX_LOST - 1)
        assert app.work() == [run_id]

    def test_whoever_dies_while_it_ends_it_leaves_it_to_the_next(self, app: ScheduledApp) -> None:
        run_id = accept(app)
        self.lose(app, run_id, MAX_LOST + 2)
        assert app.work() == []
        assert record(app, run_id).error == WORKER_LOST

    def test_a_canceled_run_whose_worker_died_does_not_start_again(self, app: ScheduledApp) -> None:
        runs = app.services().runs
        run_id = accept(app)
        runs.claim(run_id, "work", "dead:1", LEASE)
        runs.cancel(run_id, "work", Outcome.canceled(run_id))
        assert runs.lose(run_id, "dead:1") == (1, False)
        assert app.work() == []
        assert record(app, run_id).status == "canceled"

    def test_a_cancel_ends_a_run_that_cannot_be_opened(self, app: ScheduledApp) -> None:
        runs = app.services().runs
        run_id = accept(app)
        alter(app, run_id, seal=b"nonsense")
        runs.claim(run_id, "work", "dead:1", LEASE)
        runs.cancel(run_id, "work", Outcome.canceled(run_id))
        alter(app, run_id, lease=1)
        assert app.work() == []
        assert ended(app, run_id)[b"status"] == b"canceled"


TAMPERED: dict[str, dict[str, Any]] = {
    "an attempt that is no number": {"attempt": "many"},
    "losses that are no number": {"lost": "-1e400"},
    "a limit that is no number": {"max_lost": "nan"},
    "a lease that is no number": {"lease": "0x7fffffffffffffff"},
    "a due time that is no number": {"due": "later"},
    "a start that is no number": {"started": "\xff\xfe"},
    "an enqueuing that is no number": {"enqueued": "inf"},
    "a time to live that is no number": {"ttl": "for ever"},
    "a reply channel without end": {"reply": "x" * 100_000},
    "watchers that are none": {"watchers": "\0 \n " * 1000},
    "steps without end": {"steps": "9" * 15, "v": "3"},
    "a session that is none": {"session": b"\xff\xfe"},
    "a wait that is none": {"waiting": "[" * 5000, "spent": "nan", "waited": "9" * 15, "v": "3"},
    "numbers without end": dict.fromkeys(("attempt", "lost", "enqueued", "ttl"), "9" * 400),
}  # fmt: skip


@pytest.mark.parametrize("kind", TAMPERED)
def test_a_tampered_field_keeps_its_run_from_nothing_but_its_start(
    app: ScheduledApp, kind: str
) -> None:
    run_id = accept(app)
    alter(app, run_id, **TAMPERED[kind])
    app.work()
    fields = app.redis.hgetall(f"callboard:run:{run_id}")
    assert fields[b"status"] in (b"succeeded", b"failed")
    assert app.redis.zscore("callboard:open", run_id) is None


def test_a_record_of_another_type_costs_its_run_only(app: ScheduledApp) -> None:
    forged, right = accept(app), accept(app)
    app.redis.delete(f"callboard:run:{forged}")
    app.redis.lpush(f"callboard:run:{forged}", "not a record")
    assert app.work() == [right]
    app.redis.zadd("callboard:open", {forged: 1})
    assert app.services().runs.sweep() == []
    assert app.redis.zscore("callboard:open", forged) is None


@pytest.mark.parametrize("gone", ["queue", "message", "action"])
def test_a_run_that_nobody_can_be_woken_for_expires(app: ScheduledApp, gone: str) -> None:
    run_id, other = accept(app), accept(app)
    app.redis.hdel(f"callboard:run:{run_id}", gone)
    app.redis.delete("callboard")
    app.redis.zadd("callboard:open", {run_id: 1, other: 2, b"\xff\xfe": 3})
    runs = app.services().runs
    for overdue, action in runs.sweep():
        runs.expire(overdue, action, Outcome.failed("Expired", overdue))
    ended(app, run_id)
    assert app.queued() == [other]
    assert app.redis.zscore("callboard:open", b"\xff\xfe") is None


def test_the_same_message_twice_does_nothing_twice(app: ScheduledApp) -> None:
    run_id = accept(app)
    message = app.redis.lindex("callboard", 0)
    app.work()
    app.redis.lpush("callboard", message)
    assert app.work() == []
    assert [run_id] == STARTED
    assert json.loads(message)["headers"]["id"] == run_id
    assert execute(app.services(), work, run_id, tuple).end is None


@pytest.mark.parametrize("where", ["the database", "the handler"])
def test_the_end_of_its_time_in_a_call_to_the_database_is_the_databases(
    app: ScheduledApp, where: str
) -> None:
    """The call's own time, a little shorter, is over as well: which of the two the process notices
    first on a busy machine is chance."""

    @declared("work", timeout=5.0)
    def waits(ctx: ActionContext) -> ActionResult:
        with within(time.monotonic() + 60) if where == "the database" else nullcontext():
            raise lifecycle.TimedOut

    services, call = app.services(), Call(caller="alice")
    options: dict[str, Any] = {"max_queue": 100, "result_ttl": 60}
    run_id = services.runs.accept(str(uuid4()), waits, call, **options).run_id
    app.redis.hset(f"callboard:run:{run_id}", "started", 1)  # its time is over
    execute(services, waits, run_id, tuple)
    error = record(app, run_id).error
    assert (
        error
        == {
            "the database": "The database did not answer in time",
            "the handler": "Timed out after 5 s",
        }[where]
    )
