"""Work that is the owner's alone."""

from callboard import ActionContext, ActionResult, action, fail, ok


@action
def recompute_analytics(ctx: ActionContext) -> ActionResult:
    """Count the users again. Gated in the handler, by the owner's id in the environment."""
    owner = ctx.env.get("OWNER_USER_ID")
    if owner and ctx.user_id != owner:
        return fail("Forbidden: owner only")
    users = ctx.tools.query("users").unwrap()
    ctx.tools.create("analytics", {"users": users["count"]}, "summary").unwrap()
    return ok({"users": users["count"]})
