"""Runs that start runs."""

from typing import Any

from callboard import ActionContext, ActionResult, AsyncActionContext, action, fail, ok


@action(internal=True)
def started(ctx: ActionContext, params: dict[str, Any]) -> ActionResult:
    """Leaves a trace, once a run."""
    ctx.tools.create("started", {"by": params["by"], "runId": ctx.run_id}).unwrap()
    return fail("as asked") if params.get("fail") else ok(params["by"])


@action(internal=True)
def all_started(ctx: ActionContext) -> ActionResult:
    ends = [end["status"] for end in ctx.results()]
    ctx.tools.create("joins", {"by": ctx.params["by"], "ends": sorted(ends)}).unwrap()
    return ok()


@action(transaction=True)
def start_committed(ctx: ActionContext) -> ActionResult:
    by = ctx.params["by"]
    result = ctx.start("started", {"by": by}, delay=ctx.params.get("delay"))
    return fail("rolled back") if ctx.params.get("fail") else result


@action
async def start_and_join(ctx: AsyncActionContext) -> ActionResult:
    by = ctx.params["by"]
    calls = [("started", {"by": by, "fail": n == 0}) for n in range(ctx.params["n"])]
    return await ctx.start_all(calls, then=("allStarted", {"by": by}))


@action
async def start_and_wait(ctx: AsyncActionContext) -> ActionResult:
    run = (await ctx.start("started", {"by": ctx.params["by"]})).unwrap()
    return await ctx.result(run["runId"])


@action
def put_schedules(ctx: ActionContext) -> ActionResult:
    for name in ctx.params["names"]:
        ctx.schedules.put(name, "started", cron="0 0 1 1 *", timezone="UTC").unwrap()
    return ok()


@action
def remove_schedules(ctx: ActionContext) -> ActionResult:
    for name in ctx.params["names"]:
        ctx.schedules.remove(name).unwrap()
    return ok()
