"""The actions of `test_testing`, as async ones: under the same names."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from typing import Any

from pydantic import BaseModel

from callboard import ActionResult, AsyncActionContext, Retry, action, fail, ok

__all__ = ["CALLED", "TENANT", "Amount", "Busy"]

TENANT = contextvars.ContextVar("TENANT", default="nobody")


class Busy(Exception):
    """Worth another try."""


class Amount(BaseModel):
    cents: int


@action(retry=Retry(max_attempts=3, on=(Busy,)))
async def flaky(ctx: AsyncActionContext) -> ActionResult:
    await ctx.progress(ctx.attempt / 10, "trying")
    if ctx.attempt < ctx.params["succeedsAt"]:
        raise Busy
    return ok({"attempt": ctx.attempt, "claims": dict(ctx.claims), "token": bool(ctx.caller_jwt)})


@action(transaction=True)
async def pay(ctx: AsyncActionContext, params: Amount) -> ActionResult:
    (await ctx.tools.create("payments", {"cents": params.cents}, "one")).unwrap()
    return ok() if params.cents else fail("Nothing to pay")


@action
async def pay_by_call(ctx: AsyncActionContext) -> ActionResult:
    return await pay(ctx, Amount(cents=5))


@action
async def pay_within(ctx: AsyncActionContext) -> ActionResult:
    """Take no notice of how it goes."""
    async with ctx.tools.transaction():
        await pay(ctx, Amount(cents=ctx.params["cents"]))
    return ok()


@action(transaction=True)
async def pay_twice(ctx: AsyncActionContext) -> ActionResult:
    await pay(ctx, Amount(cents=5))
    if ctx.params.get("raises"):
        with contextlib.suppress(TypeError):
            await pay(ctx, None, None)
    await pay(ctx, Amount(cents=ctx.params["cents"]))
    return ok()


@action
async def tuples(ctx: AsyncActionContext) -> ActionResult:
    return ok({"pair": (1, 2)})


@action
async def forgetful(ctx: AsyncActionContext) -> Any:
    """Returns nothing."""


@action
async def careless(ctx: AsyncActionContext) -> ActionResult:
    TENANT.set("alice")
    return ok()


@action
def pay_plainly(ctx: Any) -> ActionResult:
    return ok()


@action
async def mixed(ctx: AsyncActionContext) -> ActionResult:
    return pay_plainly(ctx)


@action
def mixed_plainly(ctx: Any) -> Any:
    return pay(ctx, Amount(cents=1))


@action
async def many(ctx: AsyncActionContext) -> ActionResult:
    """300 calls at once, and the same number of creates."""
    await asyncio.gather(*(ctx.tools.create("items", {"n": n}) for n in range(300)))
    found = await asyncio.gather(*(ctx.tools.query("items", {"n": n}) for n in range(300)))
    return ok({"found": sum(one.unwrap()["count"] for one in found)})


@action
async def grouped(ctx: AsyncActionContext) -> ActionResult:
    """A task of a group has nothing to go on with."""
    async with asyncio.TaskGroup() as group:
        group.create_task(_unwrapped(ctx))
        group.create_task(asyncio.sleep(60))
    return ok()


async def _unwrapped(ctx: AsyncActionContext) -> None:
    (await ctx.tools.get("items", "missing")).unwrap()


@action
async def exits(ctx: AsyncActionContext) -> ActionResult:
    raise SystemExit(3)


@action
async def reads_past_the_tools(ctx: AsyncActionContext) -> ActionResult:
    await ctx.db["items"].insert_one({"_id": "x", "data": {"a": 1}})
    return ok([row["_id"] async for row in ctx.db["items"].find()])


CALLED = (
    *(flaky, pay, pay_by_call, pay_within, pay_twice, tuples, forgetful, careless),
    *(pay_plainly, mixed, mixed_plainly, many, grouped, exits, reads_past_the_tools),
)
