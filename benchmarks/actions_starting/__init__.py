"""What the benchmark of starts does, as Callboard actions: parents, and what they start.

A parent has a worker of its own, so that it takes no place from its children. ``held`` is of a
queue that no worker serves: what it takes to start it is not mixed with what it takes to run it.
"""

from time import monotonic
from typing import Any
from uuid import uuid4

from pymongo import monitoring

from benchmarks.stamps import stamp, stamped
from callboard import ActionContext, ActionResult, action, ok


class Commits(monitoring.CommandListener):
    """When the last transaction of this process was committed."""

    last = 0.0

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        """Nothing to do."""

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        """The server has answered."""
        if event.command_name == "commitTransaction":
            Commits.last = monotonic()

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """Nothing to do."""


monitoring.register(Commits())


@action
def noop(ctx: ActionContext) -> ActionResult[None]:
    """Do nothing."""
    return ok()


@action(queue="held")
def held(ctx: ActionContext) -> ActionResult[None]:
    """Do nothing, on a queue that nobody serves."""
    return ok()


@action
def tell(ctx: ActionContext) -> ActionResult[None]:
    """Tell when it was started."""
    stamp(ctx.params["name"])
    return ok()


@action(queue="parents", timeout=120)
def start_each(ctx: ActionContext) -> ActionResult[float]:
    """Start ``count`` runs one by one: seconds."""
    started = monotonic()
    for _ in range(ctx.params["count"]):
        ctx.start("held").unwrap()
    return ok(monotonic() - started)


@action(queue="parents", timeout=120)
def start_many(ctx: ActionContext) -> ActionResult[float]:
    """Start ``count`` runs at once: seconds. ``served``: while workers run them."""
    child = "noop" if ctx.params["served"] else "held"
    started = monotonic()
    ctx.start_all([(child, {})] * ctx.params["count"]).unwrap()
    return ok(monotonic() - started)


@action(queue="parents", timeout=120)
def latency(ctx: ActionContext) -> ActionResult[list[float]]:
    """From a start to the child's handler, seconds, ``count`` times one after the other."""
    found = []
    for _ in range(ctx.params["count"]):
        name, started = uuid4().hex, monotonic()
        ctx.start("tell", {"name": name}).unwrap()
        found.append(stamped(name) - started)
    return ok(found)


@action(queue="parents", timeout=120)
def latency_committed(ctx: ActionContext) -> ActionResult[list[float]]:
    """`latency`, of starts in transactions: from the database's answer to the commit."""
    found = []
    for number in range(ctx.params["count"]):
        name = uuid4().hex
        with ctx.tools.transaction():
            ctx.tools.create("parents", {"number": number}, name).unwrap()
            ctx.start("tell", {"name": name}).unwrap()
        told = stamped(name)
        found.append(told - Commits.last)
    return ok(found)


@action(queue="parents", timeout=120)
def join(ctx: ActionContext) -> ActionResult[float]:
    """From a `start_all` of ``count`` runs to the handler of what waits for them: seconds."""
    name, started = uuid4().hex, monotonic()
    calls: list[tuple[str, Any]] = [("noop", {})] * ctx.params["count"]
    ctx.start_all(calls, then=("tell", {"name": name})).unwrap()
    return ok(stamped(name) - started)
