"""Runs that a limit counts, each for the runs of its key."""

from __future__ import annotations

import asyncio
import time

from callboard import ActionContext, ActionResult, AsyncActionContext, Limit, action, ok
from chaos.app.handlers import STEP_SECONDS, LongRun
from chaos.intervals import executing

AT_ONCE = 2  # runs of one key, of plain and of async handlers each


@action(limit=Limit(concurrency=AT_ONCE, key=lambda params: params.key))
def take_slot(ctx: ActionContext, params: LongRun) -> ActionResult:
    """Takes its time."""
    with executing(ctx.run_id) as still_here:
        until = time.monotonic() + params.seconds
        while time.monotonic() < until:
            time.sleep(STEP_SECONDS)
            still_here()
        return ok()


@action(limit=Limit(concurrency=AT_ONCE, key=lambda params: params.key))
async def take_slot_async(ctx: AsyncActionContext, params: LongRun) -> ActionResult:
    """Takes its time."""
    with executing(ctx.run_id) as still_here:
        until = time.monotonic() + params.seconds
        while time.monotonic() < until:
            await asyncio.sleep(STEP_SECONDS)
            still_here()
        return ok()
