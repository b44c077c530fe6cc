"""Items that wait to be processed."""

from callboard import ActionContext, ActionResult, action, ok


@action
def process_pending_items(ctx: ActionContext) -> ActionResult:
    """Mark every pending item as processed."""
    pending = ctx.tools.query("items", where={"status": "pending"}).unwrap()
    for item in pending["records"]:
        ctx.tools.update("items", item["recordId"], {"status": "processed"}).unwrap()
    return ok({"processed": pending["count"]})


@action
def heartbeat(ctx: ActionContext) -> ActionResult:
    """Note that the schedules run: one fires it each minute, see ``schedules.py``."""
    return ctx.tools.create("settings", {"lastRun": ctx.run_id}, "global")
