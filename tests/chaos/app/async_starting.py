"""The same for handlers on an event loop: each is `chaos.app.starting`'s under `await`."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import nullcontext

from callboard import ActionResult, AsyncActionContext, Retry, action, fail, ok
from chaos.app.async_handlers import WAIT_SECONDS
from chaos.app.handlers import Keyed
from chaos.app.starting import (
    CHILD_SECONDS,
    DECLINED,
    Guest,
    Invitations,
    Order,
    after_order,
    guests,
    told,
)
from chaos.intervals import executing


@action(transaction=True, retry=Retry(on=(ConnectionError,), max_attempts=5, backoff=0.1))
async def place_order_async(ctx: AsyncActionContext, params: Order) -> ActionResult:
    """A row and a child commit together; one in five fails at first, after both."""
    with executing(ctx.run_id):
        order = await ctx.tools.create("orders", {"key": params.key})
        child = {"key": params.key}
        (await ctx.start("packOrderAsync", child, delay=params.delay)).unwrap()
        return after_order(ctx.attempt, params) or order


@action(internal=True, transaction=True, timeout=CHILD_SECONDS)
async def pack_order_async(ctx: AsyncActionContext, params: Keyed) -> ActionResult:
    """The child: each run of it would leave a record of its own."""
    with executing(ctx.run_id):
        await asyncio.sleep(WAIT_SECONDS)
        return await ctx.tools.create("packages", {"key": params.key}, str(uuid.uuid4()))


@action
async def invite_all_async(ctx: AsyncActionContext, params: Invitations) -> ActionResult:
    """A group of children, and what joins them."""
    with executing(ctx.run_id):
        async with ctx.tools.transaction() if params.together else nullcontext():
            then = ("countInvitationsAsync", {"key": params.key})
            (await ctx.start_all(guests(params), then=then)).unwrap()
            row = {"key": params.key, "guests": params.guests}
            return await ctx.tools.create("invitations", row)


@action(internal=True, transaction=True, timeout=CHILD_SECONDS)
async def invite_one_async(ctx: AsyncActionContext, params: Guest) -> ActionResult:
    """One of the group: each run of it would leave a record of its own. Some fail."""
    with executing(ctx.run_id):
        await asyncio.sleep(WAIT_SECONDS)
        (await ctx.tools.create("guests", params.model_dump(), str(uuid.uuid4()))).unwrap()
        return fail(DECLINED) if params.declines else ok(params.number)


@action(internal=True, transaction=True, timeout=CHILD_SECONDS)
async def count_invitations_async(ctx: AsyncActionContext, params: Keyed) -> ActionResult:
    """The join: each run of it would leave a record of its own."""
    with executing(ctx.run_id):
        ends = [told(end) async for end in ctx.results()]
        count = {"key": params.key, "ends": ends}
        return await ctx.tools.create("counts", count, str(uuid.uuid4()))
