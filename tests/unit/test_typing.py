"""What `mypy --strict` knows of an application's handlers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HEAD = """\
from __future__ import annotations
from collections.abc import Iterator
from typing import Any
from callboard import ActionContext, ActionResult, AsyncActionContext, action, hooks, ok
"""

RIGHT = """
@action
def plain(ctx: ActionContext) -> ActionResult:
    with ctx.tools.transaction():
        record = ctx.tools.get("items", "x").unwrap()["record"]
    ctx.progress(0.5)
    return ok([record, ctx.fetch("platform", "/x").json(), ctx.db["items"].find_one()])


@action(transaction=True)
async def waits(ctx: AsyncActionContext) -> ActionResult:
    return (await ctx.tools.get("items", "x"))


@action
async def calls(ctx: AsyncActionContext, params: dict[str, int]) -> ActionResult:
    async with ctx.tools.transaction():
        record = (await ctx.tools.get("items", "x")).unwrap()["record"]
        await waits(ctx)
    await ctx.progress(0.5)
    found = await ctx.db["items"].find_one()
    return ok([record, (await ctx.fetch("platform", "/x")).json(), found])


def called(ctx: ActionContext) -> ActionResult:
    return plain(ctx)


class Clients:
    rate: float


@action
async def typed(ctx: AsyncActionContext[Clients]) -> ActionResult:
    return ok(ctx.state.rate + 1.0)


@hooks.process
def clients() -> Iterator[Clients]:
    yield Clients()


@hooks.around
def plainly(ctx: ActionContext[Clients], call_next: hooks.CallNext) -> ActionResult:
    return call_next()


@hooks.around
async def awaiting(ctx: AsyncActionContext, call_next: hooks.AsyncCallNext) -> ActionResult:
    return await call_next()
"""

WRONG = {
    "its data": (
        "async def f(ctx: AsyncActionContext) -> Any:\n"
        "    return ctx.tools.get('items', 'x').unwrap()",
        '"Coroutine[Any, Any, ActionResult[dict[str, Any]]]" has no attribute "unwrap"',
    ),
    "no use of it": (
        "async def f(ctx: AsyncActionContext) -> None:\n    ctx.tools.create('items', {})",
        "Are you missing an await?",
    ),
    "progress": (
        "async def f(ctx: AsyncActionContext) -> None:\n    ctx.progress(0.5)",
        "Are you missing an await?",
    ),
    "the response": (
        "async def f(ctx: AsyncActionContext) -> Any:\n    return ctx.fetch('a', '/').json()",
        'has no attribute "json"',
    ),
    "the block": (
        "async def f(ctx: AsyncActionContext) -> None:\n    with ctx.tools.transaction():\n"
        "        pass",
        'has no attribute "__enter__"',
    ),
    "a result": (
        "@action\nasync def f(ctx: AsyncActionContext) -> ActionResult:\n    return ok()\n\n\n"
        "async def g(ctx: AsyncActionContext) -> ActionResult:\n    return f(ctx)",
        "Incompatible return value type",
    ),
    "the state": (
        "async def f(ctx: AsyncActionContext[int]) -> Any:\n    return ctx.state.rate",
        '"int" has no attribute "rate"',
    ),
    "the database": (
        "async def f(ctx: AsyncActionContext) -> Any:\n"
        "    return ctx.db['items'].find_one({})['data']",
        "not indexable",
    ),
}


@pytest.fixture(scope="module")
def mypy(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """What `mypy --strict` prints of these modules, by their names: ``mypy(one="import x")``."""
    folder = tmp_path_factory.mktemp("typed")

    def check(**modules: str) -> str:
        files = []
        for name, text in modules.items():
            files.append(folder / f"{name}.py")
            files[-1].write_text(HEAD + text + "\n")
        command = [sys.executable, "-m", "mypy", "--strict", "--config-file", os.devnull]
        options = ["--cache-dir", str(folder / "cache"), "--hide-error-context", *map(str, files)]
        environment = {**os.environ, "MYPYPATH": str(Path(__file__).parents[2])}
        done = subprocess.run(
            [*command, *options], capture_output=True, text=True, check=False, env=environment
        )
        return done.stdout + done.stderr

    return check


def test_it_knows_what_is_to_be_awaited(mypy: Callable[..., str]) -> None:
    modules = {f"wrong{n}": text for n, (text, _) in enumerate(WRONG.values())}
    printed = mypy(right=RIGHT, **modules)
    of = {name: [line for line in printed.splitlines() if f"{name}.py" in line] for name in modules}
    for name, (what, (_, message)) in zip(modules, WRONG.items(), strict=True):
        assert any(message in line for line in of[name]), (what, printed)
    assert "right.py" not in printed
