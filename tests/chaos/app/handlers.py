"""What applications do: set a record, append a line, move money, take their time."""

from __future__ import annotations

import time
import uuid

from pydantic import BaseModel

from callboard import ActionContext, ActionResult, action, ok
from chaos.intervals import executing

STEP_SECONDS = 0.1


class Keyed(BaseModel):
    key: str  # the Idempotency-Key of the call


class Amount(Keyed):
    amount: int


class Transfer(Amount):
    source: str
    target: str


class LongRun(Keyed):
    seconds: float


@action
def open_accounts(ctx: ActionContext) -> ActionResult:
    """Give each account its first balance."""
    for account, balance in ctx.params.items():
        ctx.tools.create("accounts", {"balance": balance}, account).unwrap()
    return ok()


@action
def put_profile(ctx: ActionContext, params: Amount) -> ActionResult:
    """A plain upsert."""
    with executing(ctx.run_id):
        return ctx.tools.create("profiles", {"amount": params.amount}, params.key)


@action
def append_line(ctx: ActionContext, params: Amount) -> ActionResult:
    """A line of a ledger: a create without an id."""
    with executing(ctx.run_id):
        return ctx.tools.create("ledger", params.model_dump())


@action(timeout=5)
def append_soon(ctx: ActionContext, params: Amount) -> ActionResult:
    """The same, for a caller who cannot wait."""
    return ctx.tools.create("ledger", params.model_dump())


@action(transaction=True)
def transfer(ctx: ActionContext, params: Transfer) -> ActionResult:
    """Read, change and write two accounts, and leave a row about it."""
    with executing(ctx.run_id):
        for account, change in (
            (params.source, -params.amount),
            (params.target, params.amount),
        ):
            record = ctx.tools.get("accounts", account).unwrap()["record"]
            balance = record["data"]["balance"] + change
            ctx.tools.update("accounts", account, {"balance": balance}).unwrap()
        return ctx.tools.create("transfers", params.model_dump())


@action(timeout=60)
def long_run(ctx: ActionContext, params: LongRun) -> ActionResult:
    """Longer than a lease; a line at the end."""
    with executing(ctx.run_id) as still_here:
        until = time.monotonic() + params.seconds
        while time.monotonic() < until:
            time.sleep(STEP_SECONDS)
            still_here()
        return ctx.tools.create("long_runs", {"key": params.key})


@action(on_worker_lost="fail")
def charge(ctx: ActionContext, params: Keyed) -> ActionResult:
    """An effect that must not repeat: each start would leave a record of its own."""
    with executing(ctx.run_id):
        charged = ctx.tools.create("charges", {"key": params.key}, str(uuid.uuid4()))
        time.sleep(STEP_SECONDS)
        return charged
