"""A handler that remembers, in a process that dies."""

import os
import signal
import time

from callboard import ActionContext, ActionResult, action, ok


@action
def remembers(ctx: ActionContext) -> ActionResult:
    """Its process dies once, at the point that ``die`` names; answers what was done outside."""

    def point(name: str) -> None:
        if ctx.attempt == 1 and ctx.params.get("die") == name:
            os.kill(os.getpid(), signal.SIGKILL)

    def charge() -> str:
        point("before")
        ctx.db["ledger"].insert_one({"run": ctx.run_id, "key": ctx.step_key("charge")})
        point("after the effect")
        return "charged"

    charged = ctx.step("charge", charge)
    point("after the keeping")
    ctx.sleep("a moment", 0.3)
    rows = [row["key"] for row in ctx.db["ledger"].find({"run": ctx.run_id})]
    point("after the wait")
    return ok({"charged": charged, "times": len(rows), "keys": len(set(rows))})


@action
def patient(ctx: ActionContext) -> ActionResult:
    """Notes that it has begun, once, and waits for a signal."""

    def begin() -> None:
        ctx.db["begun"].insert_one({"run": ctx.run_id})

    ctx.step("begin", begin)
    return ok(ctx.wait_for_signal("go", timeout=86_400))


@action(timeout=2)
def outlasts(ctx: ActionContext) -> ActionResult:
    """Half of its time is over when it parks; it does not come back from the other half."""
    ctx.step("half", time.sleep, 1)
    ctx.sleep("a moment", 0.1)
    time.sleep(60)
    return ok()
