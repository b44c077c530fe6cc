"""Hooks around handlers of both kinds, in this process: order, errors, what each is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from dataclasses import replace
from traceback import extract_tb
from typing import Any

import pytest

from callboard import (
    ActionContext,
    ActionResult,
    AsyncActionContext,
    Retry,
    action,
    fail,
    hooks,
    ok,
)
from callboard.registry import Registry
from callboard.sdk.hooks import Hook, Hooks
from callboard.testing.inline import InlineCall

happened: list[Any] = []
SCOPE: ContextVar[str] = ContextVar("scope", default="nobody's")

Any_ = ActionContext | AsyncActionContext


class Busy(Exception):
    """Somebody else is faster."""


class GaveUp(BaseException):
    """Not an `Exception`."""


def what(ctx: Any_) -> ActionResult:
    happened.append(("handler", SCOPE.get()))
    wanted = ctx.params.get("do", "answer")
    if wanted == "raise":
        raise Busy("for long")
    if wanted == "give up":
        raise GaveUp("for good")
    if wanted == "exit":
        raise SystemExit(3)
    if wanted == "interrupt":
        raise KeyboardInterrupt
    if wanted == "unwrap":
        fail("no").unwrap()
    return ok({"state": ctx.state}) if wanted == "answer" else None  # type: ignore[return-value]


@action(name="plain", retry=Retry(max_attempts=2, on=(Busy,)))
def plain(ctx: ActionContext) -> ActionResult:
    return what(ctx)


@action(name="async", retry=Retry(max_attempts=2, on=(Busy,)))
async def waits(ctx: AsyncActionContext) -> ActionResult:
    await asyncio.sleep(0)
    return what(ctx)


@action(name="plainInTransaction", transaction=True)
def plain_in_transaction(ctx: ActionContext) -> ActionResult:
    ctx.tools.create("items", {"of": "handler"})
    ctx.start("plain").unwrap()
    return ok() if ctx.params.get("well") else fail("no")


@action(name="asyncInTransaction", transaction=True)
async def async_in_transaction(ctx: AsyncActionContext) -> ActionResult:
    await ctx.tools.create("items", {"of": "handler"})
    (await ctx.start("plain")).unwrap()
    return ok() if ctx.params.get("well") else fail("no")


ACTIONS = {one.name: one for one in (plain, waits, plain_in_transaction, async_in_transaction)}


@hooks.around
def plainly(ctx: Any, call_next: hooks.CallNext) -> Any:
    happened.append(("plainly", ctx.action))
    before = SCOPE.set("plainly's")
    try:
        result = call_next()
        happened.append(("plainly", result.error if result else "nothing"))
        return result
    finally:
        SCOPE.reset(before)
        happened.append("plainly out")


@hooks.around
async def awaiting(ctx: Any, call_next: hooks.AsyncCallNext) -> Any:
    await asyncio.sleep(0)
    happened.append(("awaiting", SCOPE.get()))
    SCOPE.set("awaiting's")
    try:
        result = await call_next()
        await asyncio.sleep(0)
        return result
    finally:
        happened.append("awaiting out")


@hooks.on_error
def told(ctx: Any, error: BaseException) -> None:
    happened.append(("told", ctx.attempt, repr(error)))


@hooks.on_error
async def told_too(ctx: Any, error: BaseException) -> None:
    await asyncio.sleep(0)
    happened.append("told too")


@hooks.on_end
def ended(ctx: Any, result: ActionResult) -> None:
    happened.append(("ended", result.data if result.success else result.error))


@pytest.fixture(params=["plain", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def own(call: InlineCall) -> Any:
    """Calls the actions of this file, with these hooks."""
    happened.clear()

    def calls(*found: Hook) -> InlineCall:
        return replace(call, registry=Registry(actions=ACTIONS, hooks=Hooks.of(found)))

    return calls


def test_the_first_hook_is_outermost_and_a_handler_sees_what_they_set(own: Any, kind: str) -> None:
    own(plainly, awaiting)(kind).unwrap()
    assert happened == [
        ("plainly", kind), ("awaiting", "plainly's"), ("handler", "awaiting's"),
        "awaiting out", ("plainly", None), "plainly out",
    ]  # fmt: skip


def test_the_other_way_round(own: Any, kind: str) -> None:
    own(awaiting, plainly)(kind).unwrap()
    assert happened == [
        ("awaiting", "nobody's"), ("plainly", kind), ("handler", "plainly's"),
        ("plainly", None), "plainly out", "awaiting out",
    ]  # fmt: skip


def test_a_hook_sees_what_the_handler_raises_and_unwraps(own: Any, kind: str) -> None:
    calls = own(plainly, awaiting)
    with pytest.raises(Busy):
        calls(kind, {"do": "raise"})
    assert [one for one in happened if isinstance(one, str)] == [
        "awaiting out", "plainly out", "awaiting out", "plainly out",
    ]  # fmt: skip
    happened.clear()
    assert calls(kind, {"do": "unwrap"}) == fail("no")
    assert ("plainly", "no") in happened


def test_a_hook_may_answer_by_itself(own: Any, kind: str) -> None:
    @hooks.around
    def closed(ctx: Any, call_next: Any) -> Any:
        return fail("Closed")

    assert own(closed, plainly)(kind) == fail("Closed")
    assert happened == []


def test_a_hook_may_hand_another_context_on(own: Any, kind: str) -> None:
    @hooks.around
    def with_session(ctx: Any, call_next: Any) -> Any:
        return call_next(replace(ctx, state="a session"))

    @hooks.around
    async def with_more(ctx: Any, call_next: Any) -> Any:
        return await call_next(replace(ctx, state=f"{ctx.state} and more"))

    assert own(with_session, with_more)(kind) == ok({"state": "a session and more"})


def test_a_hook_that_answers_nothing_fails_with_what_to_do(own: Any, kind: str) -> None:
    @hooks.around
    def forgetful(ctx: Any, call_next: Any) -> Any:
        call_next()

    with pytest.raises(TypeError, match=r"test_hooks.py:\d+: @hooks.around 'forgetful' answered a"):
        own(forgetful)(kind)


def test_one_that_forgets_to_await_is_told_so(own: Any) -> None:
    @hooks.around
    async def hasty(ctx: Any, call_next: Any) -> Any:
        return call_next()

    with pytest.raises(TypeError, match=r"a coroutine; let it return what `await call_next\(\)`"):
        own(hasty)("async")


def test_a_handlers_own_fault_is_not_the_hooks(own: Any, kind: str) -> None:
    assert own(plainly, awaiting)(kind, {"do": "nothing"}) == fail("Action failed", "action_failed")


def test_each_exception_is_told_and_the_end_once(own: Any, kind: str) -> None:
    with pytest.raises(Busy):
        own(told, told_too, ended)(kind, {"do": "raise"})
    raised = "Busy('for long')"
    assert happened == [
        ("handler", "nobody's"), ("told", 1, raised), "told too",
        ("handler", "nobody's"), ("told", 2, raised), "told too", ("ended", "Action failed"),
    ]  # fmt: skip


def test_what_is_no_exception_is_told_too(own: Any, kind: str) -> None:
    with pytest.raises(GaveUp):
        own(told, ended)(kind, {"do": "give up"})
    assert happened[1:] == [("told", 1, "GaveUp('for good')"), ("ended", "Action failed")]


@pytest.mark.parametrize("around", [plainly, awaiting])
def test_the_traceback_says_where_the_handler_was(own: Any, kind: str, around: Hook) -> None:
    frames: list[str] = []

    @hooks.on_error
    def seen(ctx: Any, error: BaseException) -> None:
        frames[:] = [frame.name for frame in extract_tb(error.__traceback__)]

    with pytest.raises(Busy):
        own(around, seen)(kind, {"do": "raise"})
    assert frames[-1] == "what"


@pytest.mark.parametrize(
    ("do", "raised"), [("exit", "SystemExit(3)"), ("interrupt", "KeyboardInterrupt()")]
)
def test_what_would_end_a_process_is_told_as_it_was_raised(
    own: Any, kind: str, do: str, raised: str
) -> None:
    with pytest.raises((SystemExit, KeyboardInterrupt, RuntimeError)):
        own(told, ended)(kind, {"do": do})
    assert happened[1:] == [("told", 1, raised), ("ended", "Action failed")]


@pytest.mark.parametrize(
    ("do", "end"),
    [("answer", {"state": None}), ("unwrap", "no"), ("nothing", "Action failed")],
)
def test_every_result_is_an_end_and_no_error(own: Any, kind: str, do: str, end: Any) -> None:
    own(told, ended)(kind, {"do": do})
    assert happened == [("handler", "nobody's"), ("ended", end)]


def test_a_hook_that_is_told_and_raises_changes_no_failure(own: Any, kind: str) -> None:
    @hooks.on_error
    def broken(ctx: Any, error: BaseException) -> None:
        raise LookupError("in the hook")

    with pytest.raises(Busy):
        own(broken, ended)(kind, {"do": "raise"})
    assert happened[-1] == ("ended", "Action failed")


def test_one_that_raises_behind_a_success_fails_like_the_handler(own: Any, kind: str) -> None:
    @hooks.on_end
    def broken(ctx: Any, result: ActionResult) -> None:
        raise LookupError("in the hook")

    with pytest.raises(LookupError, match="in the hook"):
        own(broken, told)(kind)
    assert happened[-1] == ("told", 1, "LookupError('in the hook')")


@pytest.mark.parametrize("well", [True, False])
def test_the_end_is_told_behind_the_transaction(own: Any, kind: str, well: bool) -> None:
    """What the hook writes and starts is there, whatever has become of the handler's."""

    @hooks.on_end
    def noted(ctx: Any, result: ActionResult) -> Any:
        return note(ctx)

    calls = own(noted)
    result = calls(f"{kind}InTransaction", {"well": well})
    assert result == (ok() if well else fail("no"))
    found = sorted(row["data"]["of"] for row in calls.database["items"].find())
    assert found == (["handler", "hook"] if well else ["hook"])
    assert [start["action"] for start in calls.started] == ["plain"] * (1 + well)


def note(ctx: Any) -> Any:
    if isinstance(ctx, AsyncActionContext):
        return note_async(ctx)
    ctx.tools.create("items", {"of": "hook"}).unwrap()
    return ctx.start("plain").unwrap()


async def note_async(ctx: AsyncActionContext) -> None:
    (await ctx.tools.create("items", {"of": "hook"})).unwrap()
    (await ctx.start("plain")).unwrap()


class TestProcess:
    def test_its_state_is_that_of_each_handler_and_it_ends_at_the_end(
        self, own: Any, kind: str
    ) -> None:
        @hooks.process
        def clients() -> Iterator[str]:
            happened.append("begins")
            yield "clients"

        calls = own(clients)
        for _ in range(2):
            assert calls(kind) == ok({"state": "clients"})
        assert happened.count("begins") == 1

    def test_each_kind_of_handler_has_that_of_its_kind(self, own: Any) -> None:
        @hooks.process
        def plain_one() -> Iterator[str]:
            yield "plain"

        @hooks.process
        async def async_one() -> AsyncIterator[str]:
            await asyncio.sleep(0)
            yield "async"

        calls = own(plain_one, async_one)
        assert [calls(name).unwrap()["state"] for name in ("plain", "async")] == ["plain", "async"]

    def test_an_async_one_serves_plain_handlers_too(self, own: Any, kind: str) -> None:
        @hooks.process
        async def clients() -> AsyncIterator[str]:
            async with asyncio.TaskGroup():
                yield "clients"

        assert own(clients)(kind) == ok({"state": "clients"})

    def test_one_that_raises_does_so_at_the_call(self, own: Any, kind: str) -> None:
        @hooks.process
        async def broken() -> AsyncIterator[str]:
            raise LookupError("no DSN")
            yield "never"

        with pytest.raises(LookupError, match="no DSN"):
            own(broken)(kind)
