"""The daily digest of who uses the application."""

from callboard import ActionContext, ActionResult, action


@action(owner_only=True)
def daily_digest(ctx: ActionContext) -> ActionResult:
    """Have a model sum up the users, and keep what it wrote."""
    users = ctx.tools.query("users", order_by="createdAt", order_dir="desc", limit=100).unwrap()
    names = [user["data"].get("displayName") for user in users["records"]]
    prompt = f"Write one line about our {users['count']} newest users: {names}"
    written = ctx.tools.integration(
        "openai/chat-completion", {"messages": [{"role": "user", "content": prompt}]}
    ).unwrap()
    return ctx.tools.create("digests", {"users": users["count"], "text": written}, ctx.run_id)
