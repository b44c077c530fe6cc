"""An action with a field of each kind, for what makes forms and types out of a model."""

from datetime import date
from typing import Literal

from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from callboard import ActionContext, ActionResult, action, fail, ok


class Guest(BaseModel):
    name: str
    age: int | None = None


class Order(BaseModel):
    event: str = Field(description="Which event it is.", max_length=40)
    tickets: int = Field(ge=1, le=9)
    price: float = 9.5
    seat: Literal["floor", "balcony"] = "floor"
    gift: bool = False
    on: date | None = None
    guests: list[Guest] = []


class Ordered(TypedDict):
    event: str
    total: float
    guests: list[str]


@action
def order_tickets(ctx: ActionContext, params: Order) -> ActionResult[Ordered]:
    """Order tickets for an event.

    Fails:
        sold_out: all tickets are sold
    """
    if params.event == "evt_sold_out":
        return fail("All tickets are sold", "sold_out")
    names = [guest.name for guest in params.guests]
    return ok({"event": params.event, "total": params.tickets * params.price, "guests": names})
