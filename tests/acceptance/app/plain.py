"""Ordinary handlers."""

import asyncio
import logging
import sys
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr

from callboard import (
    ActionContext,
    ActionResult,
    AsyncActionContext,
    Retry,
    action,
    fail,
    ok,
)


@action(anonymous=True)
def echo(ctx: ActionContext) -> ActionResult:
    """What the handler sees of its call."""
    if ctx.params.get("log"):
        logging.getLogger("library").warning("echoes")
    return ok(
        {
            "params": dict(ctx.params),
            "userId": ctx.user_id,
            "runId": ctx.run_id,
            "attempt": ctx.attempt,
            "claims": sorted(ctx.claims),
            "hasToken": ctx.caller_jwt is not None,
        }
    )


@action
def talkative(ctx: ActionContext) -> ActionResult:
    """Logs, by itself and from a library."""
    ctx.log.info("own line", number=1)
    logging.getLogger("library").warning("line of a %s", "library")
    logging.getLogger("library").warning("wrong %d", "argument")
    ctx.log.info("no %d", "number", mean=float("nan"), half="\ud800")
    print("printed line")  # noqa: T201 - what it is for
    print("without an end", end="")  # noqa: T201
    print("printed error", file=sys.stderr)  # noqa: T201
    return ok()


@action
def environment(ctx: ActionContext) -> ActionResult:
    return ok(sorted(ctx.env))


@action
def refuse(ctx: ActionContext) -> ActionResult:
    return fail("Event not found")


@action(owner_only=True)
def for_the_owner(ctx: ActionContext) -> ActionResult:
    return ok()


@action(timeout=60)
def slow(ctx: ActionContext) -> ActionResult:
    """Takes ``seconds`` and leaves a line that it ran."""
    ctx.tools.create("slow", {"attempt": ctx.attempt}).unwrap()
    seconds = float(ctx.params.get("seconds", 1))
    for step in range(10):
        ctx.progress(step / 10, f"step {step}")
        time.sleep(seconds / 10)
    return ok({"attempt": ctx.attempt})


@action(timeout=120)
def held(ctx: ActionContext) -> ActionResult:
    """Runs until the file ``until`` is there: a test says when."""
    while not Path(ctx.params["until"]).exists():
        time.sleep(0.02)
    return ok()


@action(timeout=120)
def stepwise(ctx: ActionContext) -> ActionResult:
    """Tells each step, and goes on to the next when that file of ``until`` is there."""
    for step, gate in enumerate(ctx.params["until"]):
        ctx.progress(step / 10, f"step {step}")
        while not Path(gate).exists():
            time.sleep(0.02)
    return ok({"attempt": ctx.attempt})


@action(timeout=1)
def too_slow(ctx: ActionContext) -> ActionResult:
    time.sleep(30)
    return ok()


@action
def fail_loudly(ctx: ActionContext) -> ActionResult:
    """Says much, and raises."""
    ctx.log.info("about to fail", token=ctx.caller_jwt)
    logging.getLogger("library").info("at level info")
    print("printed line")  # noqa: T201 - what it is for
    ctx.start("started", {"by": ctx.run_id}).unwrap()
    raise ValueError(f"no stock for {ctx.caller_jwt}")


@action
async def talkative_async(ctx: AsyncActionContext) -> ActionResult:
    """Says who it is, in threads of the loop, too."""
    library, loop = logging.getLogger("library"), asyncio.get_running_loop()
    await asyncio.gather(*[asyncio.to_thread(library.info, "%s", ctx.run_id) for _ in range(3)])
    await loop.run_in_executor(None, library.warning, ctx.run_id)
    print(ctx.run_id)  # noqa: T201 - what it is for
    return ok()


class Login(BaseModel):
    user: str
    password: SecretStr


@action
def login(ctx: ActionContext, params: Login) -> ActionResult:
    return ok({"length": len(params.password.get_secret_value())})


class Busy(Exception):
    """Worth another try."""


@action(retry=Retry(max_attempts=4, on=(Busy,), backoff=0.05, max_backoff=0.1))
def flaky(ctx: ActionContext) -> ActionResult:
    """Succeeds at attempt ``at``."""
    if ctx.attempt < int(ctx.params.get("at", 3)):
        raise Busy("canary-exception")
    return ok({"attempt": ctx.attempt})


@action(transaction=True)
def transfer(ctx: ActionContext) -> ActionResult:
    """Move ``amount`` between two accounts; die half-way when told to."""
    amount = int(ctx.params["amount"])
    for account, change in ((ctx.params["from"], -amount), (ctx.params["to"], amount)):
        balance: Any = ctx.tools.get("accounts", account).unwrap()["record"]["data"]["balance"]
        ctx.tools.update("accounts", account, {"balance": balance + change}).unwrap()
    ctx.tools.create("transfers", {"amount": amount}).unwrap()
    return ok({"moved": amount})


@action
def seed(ctx: ActionContext) -> ActionResult:
    """Create the records of ``{collection: {id: data}}``."""
    for collection, records in ctx.params.items():
        for record_id, data in records.items():
            ctx.tools.create(collection, data, record_id).unwrap()
    return ok()


@action
def count(ctx: ActionContext) -> ActionResult:
    return ok(ctx.tools.query(ctx.params["collection"]).unwrap()["count"])


@action
def start_later(ctx: ActionContext) -> ActionResult:
    """Start another run, in ``seconds``."""
    return ctx.start("echo", {}, delay=ctx.params["seconds"])
