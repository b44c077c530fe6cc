"""Ten steps, one after the other, as Callboard actions; and what one of many costs."""

from time import monotonic

from benchmarks.jobs import DONE
from callboard import ActionContext, ActionResult, AsyncActionContext, action, ok

STEPS = 10
MANY = 200


def nothing(number: int) -> int:
    """A step."""
    return number


@action
def ten_steps(ctx: ActionContext) -> ActionResult[str]:
    """Each is kept before the next one begins."""
    for number in range(STEPS):
        ctx.step(f"step {number}", nothing, number)
    return ok(DONE)


@action
async def ten_steps_async(ctx: AsyncActionContext) -> ActionResult[str]:
    """The same in an async handler."""
    for number in range(STEPS):
        await ctx.step(f"step {number}", nothing, number)
    return ok(DONE)


@action
def one_step(ctx: ActionContext) -> ActionResult[float]:
    """Seconds of one of many."""
    started = monotonic()
    for number in range(MANY):
        ctx.step(f"step {number}", nothing, number)
    return ok((monotonic() - started) / MANY)


@action
async def one_step_async(ctx: AsyncActionContext) -> ActionResult[float]:
    """The same in an async handler."""
    started = monotonic()
    for number in range(MANY):
        await ctx.step(f"step {number}", nothing, number)
    return ok((monotonic() - started) / MANY)
