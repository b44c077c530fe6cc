"""Users: the rows that belong to callers."""

from callboard import ActionContext, ActionResult, action


@action
def ensure_user_row(ctx: ActionContext) -> ActionResult:
    """Create the caller's row, or refresh it; what it holds besides stays."""
    return ctx.tools.create("users", {"displayName": "New player", "score": 0}, ctx.user_id)
