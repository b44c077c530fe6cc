"""Greetings."""

from pydantic import BaseModel

from callboard import ActionContext, ActionResult, action, ok


class Greeting(BaseModel):
    name: str


@action
def say_hello(ctx: ActionContext, params: Greeting) -> ActionResult:
    ctx.tools.create("greetings", {"to": params.name}).unwrap()
    return ok({"text": f"Hello, {params.name}, from {ctx.user_id}"})
