"""Handlers whose spans the tests look at."""

from opentelemetry import trace

from callboard import ActionContext, ActionResult, AsyncActionContext, Retry, action, fail, ok


@action
def reach_out(ctx: ActionContext) -> ActionResult:
    """Write, read, and ask an upstream and the gateway."""
    secret = ctx.params["secret"]
    ctx.tools.create("notes", {"text": secret}, f"id-{secret}").unwrap()
    ctx.tools.query("notes", {"text": secret}).unwrap()
    answer = ctx.fetch("platform", f"/notes/{secret}?query={secret}", headers={"X-Own": secret})
    integration = ctx.tools.integration("openai/embed", {"text": secret}).unwrap()
    return ok({"upstream": answer.json(), "integration": integration})


@action
async def reach_out_async(ctx: AsyncActionContext) -> ActionResult:
    """The same, one after the other."""
    secret = ctx.params["secret"]
    (await ctx.tools.create("notes", {"text": secret}, f"id-{secret}")).unwrap()
    (await ctx.tools.query("notes", {"text": secret})).unwrap()
    headers = {"X-Own": secret}
    answer = await ctx.fetch("platform", f"/notes/{secret}?query={secret}", headers=headers)
    integration = (await ctx.tools.integration("openai/embed", {"text": secret})).unwrap()
    return ok({"upstream": answer.json(), "integration": integration})


class Busy(Exception):
    """Worth another try."""


@action(retry=Retry(max_attempts=2, on=(Busy,), backoff=0.05, max_backoff=0.1))
def blow_up(ctx: ActionContext) -> ActionResult:
    """Fail with a text that nobody may see, once worth a retry."""
    text = f"canary-exception {ctx.params['secret']}"
    raise Busy(text) if ctx.attempt == 1 else RuntimeError(text)


@action
def clash(ctx: ActionContext) -> ActionResult:
    """Have the database quote a record in what it answers."""
    emails = ctx.db["clashing"]
    emails.create_index("address", unique=True)
    for _ in range(2):
        emails.find_one_and_update(
            {"_id": ctx.run_id + str(_)},
            {"$set": {"address": ctx.params["secret"]}},
            upsert=True,
        )
    return ok()


@action
def give_in(ctx: ActionContext) -> ActionResult:
    """End early, with a result."""
    ctx.tools.get("notes", "missing").unwrap()
    return fail("unreachable")


@action
def own_span(ctx: ActionContext) -> ActionResult:
    """A span that the handler makes itself."""
    with trace.get_tracer("application").start_as_current_span("counting sheep"):
        return ok()
