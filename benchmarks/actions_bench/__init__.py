"""The two jobs as Callboard actions."""

from benchmarks.jobs import COLLECTION, DONE, changed_data, random_record_id
from callboard import ActionContext, ActionResult, action, ok


@action
def noop(ctx: ActionContext) -> ActionResult[str]:
    """Do nothing."""
    return ok(DONE)


@action
def upsert(ctx: ActionContext) -> ActionResult[str]:
    """Upsert one record."""
    ctx.tools.create(COLLECTION, changed_data(), random_record_id()).unwrap()
    return ok(DONE)


@action(queue="held")
def held(ctx: ActionContext) -> ActionResult[str]:
    """Do nothing, on a queue whose worker is started late."""
    return ok(DONE)
