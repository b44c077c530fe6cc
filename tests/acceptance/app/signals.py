"""Runs that wait for a signal, and show the link that sends it as their progress."""

from callboard import ActionContext, ActionResult, AsyncActionContext, action, ok

LONG = 600  # seconds


@action
def approval(ctx: ActionContext) -> ActionResult:
    ctx.step("prepare", lambda: None)
    ctx.progress(0.5, ctx.signal_url("approve"))
    return ok({"came": ctx.wait_for_signal("approve", timeout=LONG)})


@action
async def async_approval(ctx: AsyncActionContext) -> ActionResult:
    await ctx.progress(0.5, ctx.signal_url("approve"))
    return ok({"came": await ctx.wait_for_signal("approve", timeout=LONG)})
