# actions/orders.py
from pydantic import BaseModel

from callboard import ActionContext, ActionResult, action


class Order(BaseModel):
    item: str


class Reminder(BaseModel):
    order: str


@action
def place_order(ctx: ActionContext, params: Order) -> ActionResult:
    return ctx.tools.create("orders", {"item": params.item})


@action
def remind(ctx: ActionContext, params: Reminder) -> ActionResult:
    return ctx.tools.create("reminders", {"order": params.order})
