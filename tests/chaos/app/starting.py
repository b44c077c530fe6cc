"""Runs that start runs: an order and its packing, committed together; a group and its join."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

from callboard import ActionContext, ActionResult, Retry, action, fail, ok
from chaos.app.handlers import Keyed
from chaos.intervals import executing

SOLD_OUT = "Sold out"
DECLINED = "Declined"
CHILD_SECONDS = 60  # that a child may take, outages included: nobody would send it again


class Order(Keyed):
    amount: int
    refused: bool  # its transaction is rolled back
    delay: float | None  # seconds, of its child


class Invitations(Keyed):
    guests: int
    together: bool  # started in a transaction


class Guest(Keyed):
    number: int

    @property
    def declines(self) -> bool:
        """Whether the run fails."""
        return self.number % 3 == 2


@action(transaction=True, retry=Retry(on=(ConnectionError,), max_attempts=5, backoff=0.1))
def place_order(ctx: ActionContext, params: Order) -> ActionResult:
    """A row and a child commit together; one in five fails at first, after both."""
    with executing(ctx.run_id):
        order = ctx.tools.create("orders", {"key": params.key})
        ctx.start("packOrder", {"key": params.key}, delay=params.delay).unwrap()
        return after_order(ctx.attempt, params) or order


@action(internal=True, transaction=True, timeout=CHILD_SECONDS)
def pack_order(ctx: ActionContext, params: Keyed) -> ActionResult:
    """The child: each run of it would leave a record of its own."""
    with executing(ctx.run_id):
        return ctx.tools.create("packages", {"key": params.key}, str(uuid.uuid4()))


@action
def invite_all(ctx: ActionContext, params: Invitations) -> ActionResult:
    """A group of children, and what joins them."""
    with executing(ctx.run_id), ctx.tools.transaction() if params.together else nullcontext():
        then = ("countInvitations", {"key": params.key})
        ctx.start_all(guests(params), then=then).unwrap()
        return ctx.tools.create("invitations", {"key": params.key, "guests": params.guests})


@action(internal=True, transaction=True, timeout=CHILD_SECONDS)
def invite_one(ctx: ActionContext, params: Guest) -> ActionResult:
    """One of the group: each run of it would leave a record of its own. Some fail."""
    with executing(ctx.run_id):
        ctx.tools.create("guests", params.model_dump(), str(uuid.uuid4())).unwrap()
        return fail(DECLINED) if params.declines else ok(params.number)


@action(internal=True, transaction=True, timeout=CHILD_SECONDS)
def count_invitations(ctx: ActionContext, params: Keyed) -> ActionResult:
    """The join: each run of it would leave a record of its own."""
    with executing(ctx.run_id):
        ends = [told(end) for end in ctx.results()]
        count = {"key": params.key, "ends": ends}
        return ctx.tools.create("counts", count, str(uuid.uuid4()))


def after_order(attempt: int, params: Order) -> ActionResult | None:
    """What becomes of an order besides its row; raises ConnectionError."""
    if params.amount % 5 == 0 and attempt == 1:
        raise ConnectionError("the other side went away")
    return fail(SOLD_OUT) if params.refused else None


def guests(params: Invitations) -> list[tuple[str, dict[str, Any]]]:
    """The group's calls: plain handlers and async ones in turn."""
    names = ("inviteOne", "inviteOneAsync")
    return [
        (names[number % 2], {"key": params.key, "number": number})
        for number in range(params.guests)
    ]


def told(end: Mapping[str, Any]) -> list[Any]:
    """An end as the join writes it down: status, and the data or the error."""
    result = end["result"] or {}
    return [end["status"], result.get("data", result.get("error"))]
