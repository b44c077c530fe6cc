"""Runs from their start to their end, as the tests of the history need them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import redis
from pydantic import BaseModel, model_validator

from callboard import ActionResult, Limit, action, ok
from callboard.runs.outcome import Outcome
from callboard.runs.seal import Call, Sealer
from callboard.runs.store import Runs

SEALER = Sealer(("k" * 40,))


@action("work")
def work(ctx: Any) -> ActionResult:
    return ok()


class Strict(BaseModel):
    name: str


@action("strict")
def strict(ctx: Any, params: Strict) -> ActionResult:
    return ok()


class Failing(BaseModel):
    @model_validator(mode="before")
    @classmethod
    def fail(cls, _: Any) -> Any:
        raise KeyError("of the application")


@action("failing")
def failing(ctx: Any, params: Failing) -> ActionResult:
    return ok()


@action("open", anonymous=True)
def open_to_all(ctx: Any) -> ActionResult:
    return ok()


@action("hidden", internal=True)
def hidden(ctx: Any) -> ActionResult:
    return ok()


@action("whole", transaction=True)
def whole(ctx: Any) -> ActionResult:
    return ok()


@action("single", limit=Limit(concurrency=1, key=lambda params: params["tenant"]))
def single(ctx: Any) -> ActionResult:
    return ok()


ACTIONS = (work, strict, failing, open_to_all, hidden, whole, single)


def end(
    runs: Runs, outcome: Callable[[str], Outcome] | None = None, *, caller: str | None = "alice",
    run_id: str | None = None, **options: Any,
) -> str:  # fmt: skip
    """A run from its start to its end."""
    run_id = run_id or str(uuid4())
    call = Call(caller=caller, params={"canary": "canary-param"}, jwt="canary-jwt")
    given = {"max_queue": 1000, "result_ttl": 60, **options}
    runs.accept(run_id, work, call, **given)
    finish(runs, run_id, outcome)
    return run_id


def finish(runs: Runs, run_id: str, outcome: Callable[[str], Outcome] | None = None) -> None:
    runs.claim(run_id, "work", "w:1", 5)
    ended = (outcome or done)(run_id)
    assert runs.finish(run_id, "work", "w:1", ended)


def done(run_id: str) -> Outcome:
    return Outcome.of(ok("canary-result"), run_id)


def lost(run_id: str) -> Outcome:
    return Outcome.failed("Worker lost", run_id, retryable=True)


def forget_turn(client: redis.Redis) -> None:
    """Let another archiver have its turn at once."""
    client.delete("callboard:archiver")
