"""What the platform knows of the caller."""

from callboard import ActionContext, ActionResult, action, fail, ok


@action
def list_my_apps(ctx: ActionContext) -> ActionResult:
    """The caller's apps: the platform scopes them by the token that `ctx.fetch` forwards."""
    response = ctx.fetch("platform", "/api/apps")
    if not response.is_success:
        return fail(f"Upstream {response.status_code}")
    return ok(response.json())
