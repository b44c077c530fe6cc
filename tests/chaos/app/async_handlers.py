"""The same for handlers that wait on an event loop: each is `chaos.app.handlers`' under `await`.

Their effects go to the same collections; a caller's key tells whose they are.
"""

from __future__ import annotations

import asyncio
import time
import uuid

from callboard import ActionResult, AsyncActionContext, Retry, action
from chaos.app.handlers import STEP_SECONDS, Amount, Keyed, LongRun, Transfer
from chaos.intervals import executing

WAIT_SECONDS = 0.05  # as for another service


@action
async def put_profile_async(ctx: AsyncActionContext, params: Amount) -> ActionResult:
    """A plain upsert."""
    with executing(ctx.run_id):
        await asyncio.sleep(WAIT_SECONDS)
        await ctx.progress(0.5, "waited")
        return await ctx.tools.create("profiles", {"amount": params.amount}, params.key)


@action(retry=Retry(on=(ConnectionError,), max_attempts=5, backoff=0.1))
async def append_line_async(ctx: AsyncActionContext, params: Amount) -> ActionResult:
    """A create without an id; one in five fails at first, after its effect."""
    with executing(ctx.run_id):
        await asyncio.sleep(WAIT_SECONDS)
        line = await ctx.tools.create("ledger", params.model_dump())
        if params.amount % 5 == 0 and ctx.attempt == 1:
            raise ConnectionError("the other side went away")
        return line


@action(transaction=True)
async def transfer_async(ctx: AsyncActionContext, params: Transfer) -> ActionResult:
    """Read, change and write two accounts, and leave a row about it."""
    with executing(ctx.run_id):
        for account, change in (
            (params.source, -params.amount),
            (params.target, params.amount),
        ):
            record = (await ctx.tools.get("accounts", account)).unwrap()["record"]
            balance = record["data"]["balance"] + change
            (await ctx.tools.update("accounts", account, {"balance": balance})).unwrap()
        return await ctx.tools.create("transfers", params.model_dump())


@action(timeout=60)
async def long_run_async(ctx: AsyncActionContext, params: LongRun) -> ActionResult:
    """Longer than a lease; a line at the end."""
    with executing(ctx.run_id) as still_here:
        started = time.monotonic()
        while (passed := time.monotonic() - started) < params.seconds:
            await asyncio.sleep(STEP_SECONDS)
            await ctx.progress(min(passed / params.seconds, 1.0))
            still_here()
        return await ctx.tools.create("long_runs", {"key": params.key})


@action(on_worker_lost="fail")
async def charge_async(ctx: AsyncActionContext, params: Keyed) -> ActionResult:
    """An effect that must not repeat: each start would leave a record of its own."""
    with executing(ctx.run_id):
        charged = await ctx.tools.create("charges", {"key": params.key}, str(uuid.uuid4()))
        await asyncio.sleep(WAIT_SECONDS)
        return charged
