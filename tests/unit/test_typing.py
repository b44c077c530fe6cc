"""What `mypy --strict` and pyright know of an application's handlers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

import pytest

HEAD = """\
from __future__ import annotations
from collections.abc import Iterator
from typing import Annotated, Any
from typing_extensions import TypedDict
from callboard import ActionContext, ActionResult, AsyncActionContext, Fails
from callboard import action, fail, hooks, ok
from callboard.types import Created, Record
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

TYPED = """
class Made(TypedDict):  # an application's own
    recordId: str


class Summary(TypedDict):
    total: int


@action
def passes_on(ctx: ActionContext) -> ActionResult[Created]:
    return ctx.tools.create("items", {})


@action
async def passes_on_its_own(ctx: AsyncActionContext) -> ActionResult[Made]:
    return await ctx.tools.create("items", {})


@action
def looks(ctx: ActionContext) -> ActionResult:
    found = ctx.tools.get("items", "x")
    if not found.success:
        return found
    record: Record = found.data["record"]
    title: str = record["data"]["title"]
    page = ctx.tools.query("items").unwrap()
    ids: list[str] = [row["recordId"] for row in page["records"]]
    after: str | None = page["after"]
    started = ctx.start("other")
    if started.success:
        run_id: str = started.data["runId"]
        return ok([title, ids, after, run_id])
    return started


@action
def counts(ctx: ActionContext) -> Annotated[ActionResult[Summary], Fails["its_own"]]:
    deleted = ctx.tools.delete_where("items", {"a": 1})
    if deleted.success is False:
        error: str = deleted.error
        code: str = deleted.code
        return deleted if code == "not_found" else fail(error, "its_own")
    return ok({"total": deleted.data["deleted"] + 1})
"""

# mypy alone tells an ActionResult's two kinds apart by `not result.success`
NARROWED = """
class Summary(TypedDict):
    total: int


@action
def counts(ctx: ActionContext) -> ActionResult[Summary]:
    page = ctx.tools.query("items")
    if not page.success:
        error: str = page.error
        return page if error else fail("none")
    return ok({"total": page.data["count"]})


@action
async def counts_too(ctx: AsyncActionContext) -> ActionResult[Summary]:
    page = await ctx.tools.query("items")
    if not page.success:
        return page
    return ok({"total": page.data["count"]})
"""

#: what is wrong: the module, and what each of the two says of it
WRONG_DATA = {
    "data of another kind": (
        "class Summary(TypedDict):\n    total: int\n\n\n"
        "def f(ctx: ActionContext) -> ActionResult[Summary]:\n"
        "    return ctx.tools.create('items', {})",
        'got "Success[Created] | Failure", expected "Success[Summary] | Failure"',
        'Type "ActionResult[Created]" is not assignable to return type "ActionResult[Summary]"',
    ),
    "a field that is not there": (
        "def f(ctx: ActionContext) -> ActionResult:\n    found = ctx.tools.get('items', 'x')\n"
        "    if not found.success:\n        return found\n    return ok(found.data['recrod'])",
        'TypedDict "Found" has no key "recrod"',
        '"recrod" is not a defined key in "Found"',
    ),
    "a field of another type": (
        "def f(ctx: ActionContext) -> int:\n    return ctx.tools.query('items').unwrap()['after']",
        'got "str | None", expected "int"',
        'Type "str | None" is not assignable to return type "int"',
    ),
    "the text of what may be a success": (
        "def f(ctx: ActionContext) -> str:\n    return ctx.tools.get('items', 'x').error",
        'got "str | None", expected "str"',
        'Type "str | None" is not assignable to return type "str"',
    ),
    "the async kind": (
        "async def f(ctx: AsyncActionContext) -> ActionResult[dict[str, int]]:\n"
        "    return await ctx.tools.update('items', 'x', {})",
        'got "Success[Created] | Failure", expected "Success[dict[str, int]] | Failure"',
        'Type "ActionResult[Created]" is not assignable to return type',
    ),
}

WRONG = {
    "its data": (
        "async def f(ctx: AsyncActionContext) -> Any:\n"
        "    return ctx.tools.get('items', 'x').unwrap()",
        '"Coroutine[Any, Any, Success[Found] | Failure]" has no attribute "unwrap"',
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


Told = dict[str, list[str]]  # the errors in each module
Check = Callable[[Path], list[tuple[str, str]]]  # of a folder: the module and the text of each

ROOT = Path(__file__).parents[2]


def mypy(folder: Path) -> list[tuple[str, str]]:
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", os.devnull]
    options = ["--cache-dir", str(folder / "cache"), "--hide-error-context", str(folder)]
    environment = {**os.environ, "MYPYPATH": str(ROOT)}
    done = subprocess.run(
        [*command, *options], capture_output=True, text=True, check=False, env=environment
    )
    found = re.findall(r"^(\S+)\.py:\d+: (.*)", done.stdout, re.M)
    assert found, done.stdout + done.stderr
    return [(Path(file).name, text) for file, text in found]


def pyright(folder: Path) -> list[tuple[str, str]]:
    if find_spec("basedpyright") is None and os.environ.get("CI") != "true":
        pytest.skip("basedpyright is not installed here; `make install` does that")
    config = {"typeCheckingMode": "standard", "extraPaths": [str(ROOT)]}
    (folder / "pyrightconfig.json").write_text(json.dumps(config))
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "--level", "error"]
    done = subprocess.run(
        [*command, "--pythonpath", sys.executable, "--project", str(folder)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = json.loads(done.stdout)["generalDiagnostics"]
    return [(Path(row["file"]).stem, row["message"]) for row in found]


def named(wrong: Mapping[str, tuple[str, ...]], kind: str) -> dict[str, str]:
    """The modules of what is wrong, by their names."""
    return {f"{kind}_{number}": row[0] for number, row in enumerate(wrong.values())}


@pytest.fixture(scope="module", params=[mypy, pyright], ids=lambda check: check.__name__)
def checked(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Told]:
    """Which checker it is, and what it says of all the modules here."""
    check: Check = request.param
    folder = tmp_path_factory.mktemp("typed")
    modules = {"right": RIGHT, "typed": TYPED, "narrowed": NARROWED}
    for name, text in (modules | named(WRONG, "awaited") | named(WRONG_DATA, "data")).items():
        (folder / f"{name}.py").write_text(HEAD + text + "\n")
    told: Told = defaultdict(list)
    for name, text in check(folder):
        told[name].append(text)
    return check.__name__, told


def test_right_use_is_not_complained_about(checked: tuple[str, Told]) -> None:
    checker, told = checked
    assert told["right"] == told["typed"] == []
    assert told["narrowed"] == [] or checker == "pyright"


def test_wrong_use_of_data_is_told(checked: tuple[str, Told]) -> None:
    checker, told = checked
    for name, (what, row) in zip(named(WRONG_DATA, "data"), WRONG_DATA.items(), strict=True):
        expected = row[1] if checker == "mypy" else row[2]
        assert any(expected in text for text in told[name]), (what, told[name])


def test_it_knows_what_is_to_be_awaited(checked: tuple[str, Told]) -> None:
    checker, told = checked
    for name, (what, (_, message)) in zip(named(WRONG, "awaited"), WRONG.items(), strict=True):
        assert told[name], what
        assert any(message in text for text in told[name]) or checker == "pyright", told[name]
