"""Async handlers: what waits, what does not, and what ends badly."""

import asyncio
import logging
import os
import time
from pathlib import Path
from typing import Any

from callboard import ActionResult, AsyncActionContext, action, ok

_met: dict[str, int] = {}  # in this process
_all_here: dict[str, asyncio.Event] = {}


@action(anonymous=True)
async def process_of_loop(ctx: AsyncActionContext) -> ActionResult:
    """The process."""
    if ctx.params.get("log"):
        logging.getLogger("library").warning("waits")
        ctx.log.info("own line")
    return ok(os.getpid())


@action
async def meet(ctx: AsyncActionContext) -> ActionResult:
    """Ends once ``count`` runs are here at the same time."""
    name, count = ctx.params["name"], ctx.params["count"]
    here = _all_here.setdefault(name, asyncio.Event())
    _met[name] = _met.get(name, 0) + 1
    if _met[name] == count:
        here.set()
    await here.wait()
    return ok(os.getpid())


@action(timeout=120)
async def hold(ctx: AsyncActionContext) -> ActionResult:
    """Waits until the file ``until`` is there."""
    await ctx.progress(0.5, "holds")
    while not await asyncio.to_thread(Path(ctx.params["until"]).exists):
        await asyncio.sleep(0.05)
    return ok({"attempt": ctx.attempt, "pid": os.getpid()})


@action(timeout=1)
async def too_late(ctx: AsyncActionContext) -> ActionResult:
    """Is stopped, and says so."""
    return await _told(ctx)


@action(timeout=60)
async def to_cancel(ctx: AsyncActionContext) -> ActionResult:
    """The same, for one that somebody cancels."""
    return await _told(ctx)


async def _told(ctx: AsyncActionContext) -> ActionResult:
    file = Path(ctx.params["file"])
    file.write_text("begun")
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        file.write_text("canceled")
        raise
    return ok()


@action(timeout=0.5)
async def blocks(ctx: AsyncActionContext) -> ActionResult:
    """Holds up the loop for some seconds."""
    time.sleep(ctx.params["seconds"])
    return ok()


@action(timeout=0.5)
async def deaf(ctx: AsyncActionContext) -> ActionResult:
    """Takes no notice of being canceled."""
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            continue


@action
async def leave_loop(ctx: AsyncActionContext) -> Any:
    """Raises what would end a loop, in itself or in a task of its own."""
    error = {"exit": SystemExit, "interrupt": KeyboardInterrupt}[ctx.params["how"]]

    async def raises() -> None:
        raise error

    if ctx.params["where"] == "handler":
        raise error
    task = asyncio.create_task(raises())
    await asyncio.wait([task])
    return ok(os.getpid())
