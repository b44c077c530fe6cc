"""The job that waits as a Callboard action, and one that waits longer and counts."""

import asyncio
import os

from benchmarks.jobs import wait_async
from callboard import ActionResult, AsyncActionContext, action, ok

LONG_SECONDS = 10.0


class Crowd:
    """How many runs are in this process."""

    now = 0
    most = 0


@action
async def wait(ctx: AsyncActionContext) -> ActionResult[str]:
    """Wait for a second."""
    return ok(await wait_async())


@action(timeout=60)
async def wait_long(ctx: AsyncActionContext) -> ActionResult[dict[str, int]]:
    """Wait for ten seconds; tells the most that this process ran at once until its end."""
    Crowd.now += 1
    Crowd.most = max(Crowd.most, Crowd.now)
    try:
        await asyncio.sleep(LONG_SECONDS)
    finally:
        Crowd.now -= 1
    return ok({"pid": os.getpid(), "most": Crowd.most})
