# actions/orders.py
from pydantic import BaseModel

from callboard import ActionContext, ActionResult, Retry, action, fail, ok

from .services import charge, refund, send_mail

DAY = 86_400  # seconds


class Order(BaseModel):
    orderId: str
    item: str
    price: float


class Stock(BaseModel):
    item: str
    left: int


@action(owner_only=True)
def restock(ctx: ActionContext, params: Stock) -> ActionResult:
    """Say how many there are."""
    return ctx.tools.create("stock", {"left": params.left}, params.item)


@action(owner_only=True)
def place_order(ctx: ActionContext, params: Order) -> ActionResult:
    """Reserve, charge, wait for an approval, ship, and ask for a review a week later."""
    ctx.step("reserve", reserve, ctx, params)
    key = ctx.step_key("charge")
    receipt = ctx.step("charge", charge, ctx, key, params.price, retry=Retry(max_attempts=3))
    state(ctx, params, "waits for approval")
    approval = ctx.wait_for_signal("approved", timeout=3 * DAY)
    if approval is None:
        ctx.step("refund", refund, ctx, receipt)
        ctx.step("release", release, ctx, params)
        state(ctx, params, "not approved")
        return fail("Nobody has approved the order in three days", code="not_approved")
    state(ctx, params, f"shipped, approved by {approval['by']}")
    ctx.sleep("until it has come", 7 * DAY)
    ctx.step("remind", send_mail, ctx, f"How do you like your {params.item}?")
    return ok({"receipt": receipt})


def reserve(ctx: ActionContext, order: Order) -> None:
    """Take one of the stock. Both rows are written or none, so a second try finds the first."""
    with ctx.tools.transaction():
        if ctx.tools.get("reservations", order.orderId).success:
            return
        left = ctx.tools.get("stock", order.item).unwrap()["record"]["data"]["left"]
        if left < 1:
            fail("Sold out", code="sold_out").unwrap()
        ctx.tools.update("stock", order.item, {"left": left - 1}).unwrap()
        ctx.tools.create("reservations", {"item": order.item}, order.orderId).unwrap()


def release(ctx: ActionContext, order: Order) -> None:
    """Put it back, unless that is done."""
    with ctx.tools.transaction():
        if not ctx.tools.remove("reservations", order.orderId).success:
            return
        left = ctx.tools.get("stock", order.item).unwrap()["record"]["data"]["left"]
        ctx.tools.update("stock", order.item, {"left": left + 1}).unwrap()


def state(ctx: ActionContext, order: Order, text: str) -> None:
    """What people see of the order; the same at each start of the handler."""
    ctx.tools.create("orders", {"item": order.item, "state": text}, order.orderId).unwrap()
