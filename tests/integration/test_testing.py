"""The pytest plugin: `call` runs a handler in this process, on an empty database."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
from dataclasses import replace

import async_actions
import pytest
from async_actions import TENANT, Amount, Busy

from callboard import ActionContext, ActionResult, AsyncActionContext, Retry, action, fail, ok
from callboard.errors import (
    ConfigurationError,
    Forbidden,
    InvalidData,
    InvalidParams,
    NotFound,
    Unauthorized,
    UnknownAction,
)
from callboard.registry import Registry
from callboard.testing.inline import InlineCall


def test_invite_attendee_adds_the_attendee(call):
    call.tools.create("events", {"attendeeIds": ["usr_1"]}, "evt_1").unwrap()
    result = call("inviteAttendee", {"eventId": "evt_1", "attendeeId": "usr_2"}, as_user="alice")
    assert result == ok({"recordId": "evt_1"})
    event = call.tools.get("events", "evt_1").unwrap()["record"]
    assert event["data"]["attendeeIds"] == ["usr_1", "usr_2"]
    assert event["updatedBy"] == "alice"


def test_invite_attendee_requires_a_caller(call):
    with pytest.raises(Unauthorized):
        call("inviteAttendee", {"eventId": "evt_1", "attendeeId": "usr_2"}, as_user=None)


@pytest.mark.parametrize("time_of_day", ["first", "again"])
def test_every_test_finds_the_database_empty(call, time_of_day):
    assert call.tools.get("users", "alice") == fail("Record not found", "not_found")
    call("ensureUserRow").unwrap()
    assert call.database["users"].count_documents({}) == 1


def test_a_call_takes_milliseconds(call):
    call("ensureUserRow")
    started = time.perf_counter()
    for _ in range(10):
        call("ensureUserRow").unwrap()
    assert time.perf_counter() - started < 10  # ten of them; a busy machine is no failure


def test_the_owner_is_known(call):
    assert call("recomputeAnalytics", as_user="owner").success
    assert call("recomputeAnalytics", as_user="alice") == fail("Forbidden: owner only")


def test_a_refused_call_raises(call):
    with pytest.raises(UnknownAction, match="Did you mean 'inviteAttendee'"):
        call("inviteAtendee")
    with pytest.raises(InvalidParams, match="eventId"):
        call("inviteAttendee", {})
    with pytest.raises(Forbidden):
        call("dailyDigest", as_user="alice")


@action(retry=Retry(max_attempts=3, on=(Busy,)))
def flaky(ctx: ActionContext) -> ActionResult:
    ctx.progress(ctx.attempt / 10, "trying")
    if ctx.attempt < ctx.params["succeedsAt"]:
        raise Busy
    return ok({"attempt": ctx.attempt, "claims": dict(ctx.claims), "token": bool(ctx.caller_jwt)})


@action(transaction=True)
def pay(ctx: ActionContext, params: Amount) -> ActionResult:
    ctx.tools.create("payments", {"cents": params.cents}, "one").unwrap()
    return ok() if params.cents else fail("Nothing to pay")


@action
def pay_by_call(ctx: ActionContext) -> ActionResult:
    return pay(ctx, Amount(cents=5))


@action
def pay_within(ctx: ActionContext) -> ActionResult:
    """Take no notice of how it goes."""
    with ctx.tools.transaction():
        pay(ctx, Amount(cents=ctx.params["cents"]))
    return ok()


@action(transaction=True)
def pay_twice(ctx: ActionContext) -> ActionResult:
    pay(ctx, Amount(cents=5))
    if ctx.params.get("raises"):
        with contextlib.suppress(TypeError):
            pay(ctx, None, None)
    pay(ctx, Amount(cents=ctx.params["cents"]))
    return ok()


@action
def tuples(ctx: ActionContext) -> ActionResult:
    return ok({"pair": (1, 2)})


@action
def forgetful(ctx: ActionContext) -> ActionResult:
    """Returns nothing."""


@action
def careless(ctx: ActionContext) -> ActionResult:
    """Leave all kinds of things behind."""
    TENANT.set("alice")
    os.environ["TENANT"] = "alice"
    os.chdir("/")
    return ok()


CALLED = (flaky, pay, pay_by_call, pay_within, pay_twice, tuples, forgetful, careless)


@pytest.fixture(params=["plain", "async"])
def own(request, call) -> InlineCall:
    """Calls the actions of this file, and then the async ones of the same names."""
    return calls(call, CALLED if request.param == "plain" else async_actions.CALLED)


@pytest.fixture
def own_async(call) -> InlineCall:
    return calls(call, async_actions.CALLED)


def calls(call, actions) -> InlineCall:
    registry = Registry(actions={each.name: each for each in actions})
    return replace(call, registry=registry)


@action
def link(ctx: ActionContext) -> ActionResult:
    return ok(ctx.signal_url(ctx.params["name"]))


@action
async def async_link(ctx: AsyncActionContext) -> ActionResult:
    return ok(ctx.signal_url(ctx.params["name"]))


@pytest.mark.parametrize("name", ["link", "asyncLink"])
def test_a_signals_url_is_that_of_the_run(call, name):
    own = calls(call, [link, async_link])
    url = own(name, {"name": "approve"}).unwrap()
    assert re.fullmatch(
        r"http://callboard\.test/api/runs/[0-9a-f-]{36}/signals/approve\?signature=[0-9a-f]{64}",
        url,
    )
    with pytest.raises(InvalidData, match="a b"):
        own(name, {"name": "a b"})


def test_retries_happen_at_once_and_then_the_exception_is_the_tests(own):
    done = own("flaky", {"succeedsAt": 3}, claims={"role": "x"}).unwrap()
    assert done == {"attempt": 3, "claims": {"sub": "alice", "role": "x"}, "token": True}
    assert [told["fraction"] for told in own.progress] == [0.1, 0.2, 0.3]
    with pytest.raises(Busy):
        own("flaky", {"succeedsAt": 4})


def test_a_transaction_leaves_nothing_of_a_failure(own):
    assert own("pay", {"cents": 0}) == fail("Nothing to pay")
    assert own.database["payments"].count_documents({}) == 0
    assert own("pay", {"cents": 5}).success
    assert own.database["payments"].count_documents({}) == 1


def test_a_transaction_is_not_lost_by_a_plain_call(own):
    with pytest.raises(ConfigurationError, match=r"'pay' has transaction=True.*'payByCall'"):
        own("payByCall")
    assert own.database["payments"].count_documents({}) == 0


@pytest.mark.parametrize("action", ["payWithin", "payTwice"])
def test_a_plain_call_joins_the_transaction_that_is_open(own, action):
    assert own(action, {"cents": 0}) == fail("Nothing to pay")
    assert own.database["payments"].count_documents({}) == 0
    assert own(action, {"cents": 5}).success
    assert own.database["payments"].count_documents({}) == 1


def test_an_exception_in_a_joined_call_is_a_failure_of_the_transaction(own):
    assert own("payTwice", {"cents": 5, "raises": True}) == fail("Action failed", "action_failed")
    assert own.database["payments"].count_documents({}) == 0


def test_a_result_looks_as_it_does_after_json(own):
    assert own("tuples") == ok({"pair": [1, 2]})
    assert own("forgetful") == fail("Action failed", "action_failed")


def test_a_call_leaves_nothing_for_the_next(own):
    before = os.getcwd(), dict(os.environ)
    own("careless").unwrap()
    assert (os.getcwd(), dict(os.environ)) == before
    assert TENANT.get() == "nobody"


class TestAsyncHandlers:
    def test_an_action_of_the_other_kind_is_no_function_to_call(self, own_async):
        with pytest.raises(ConfigurationError, match=r"'payPlainly' is a plain `def`.*run of its"):
            own_async("mixed")
        with pytest.raises(ConfigurationError, match=r"'pay' is `async def`.*a run of its own"):
            own_async("mixedPlainly")

    def test_many_calls_at_once(self, own_async):
        assert own_async("many") == ok({"found": 300})
        assert own_async.database["items"].count_documents({}) == 300

    def test_a_failure_that_stops_a_task_of_a_group_is_the_result(self, own_async):
        assert own_async("grouped") == fail("Record not found", "not_found")

    def test_a_handler_that_exits_ends_no_process_and_no_loop(self, own_async):
        with pytest.raises(RuntimeError, match="raised SystemExit"):
            own_async("exits")
        assert own_async("tuples").success

    def test_the_database_is_pymongos_async_one(self, own_async):
        assert own_async("readsPastTheTools") == ok(["x"])


@action(internal=True)
def mail(ctx: ActionContext, params: dict[str, str]) -> ActionResult:
    ctx.tools.create("mails", dict(params)).unwrap()
    return ok(params["to"])


@action
def joined(ctx: ActionContext) -> ActionResult:
    return ok([end["result"]["data"] for end in ctx.results()])


@action
def invite(ctx: ActionContext) -> ActionResult:
    with ctx.tools.transaction():
        ctx.start("mail", {"to": "ada"}, delay=3600).unwrap()
        if ctx.params.get("fail"):
            fail("no").unwrap()
    ctx.start_all([("mail", {"to": "bob"}), ("mail", {"to": "eve"})], then=("joined", {})).unwrap()
    return ctx.start("mail", {"to": "bob"}, key="once")


@action
async def invite_async(ctx: AsyncActionContext) -> ActionResult:
    async with ctx.tools.transaction():
        (await ctx.start("mail", {"to": "ada"}, delay=3600)).unwrap()
        if ctx.params.get("fail"):
            fail("no").unwrap()
    calls = [("mail", {"to": "bob"}), ("mail", {"to": "eve"})]
    (await ctx.start_all(calls, then=("joined", {}))).unwrap()
    return await ctx.start("mail", {"to": "bob"}, key="once")


@pytest.mark.parametrize("name", ["invite", "inviteAsync"])
def test_what_is_started_is_noted_and_run_when_the_test_says_so(call, name):
    own = calls(call, (mail, joined, invite, invite_async))
    assert own(name, {"fail": True}) == fail("no")
    assert own.started == []
    one = own(name).unwrap()["runId"]
    assert own(name).unwrap()["runId"] == one
    first = own.started[0]
    assert (first["action"], first["params"], first["caller"]) == ("mail", {"to": "ada"}, "alice")
    assert 3500 < first["delay"] <= 3600
    results = own.run_started()
    assert results.count(ok(["bob", "eve"])) == 2
    assert own.started == []
    assert call.database["mails"].count_documents({}) == 7
    with pytest.raises(UnknownAction):
        own("mail", {"to": "ada"})


@action
async def waits(ctx: AsyncActionContext) -> ActionResult:
    one = (await ctx.start("mail", {"to": "ada"})).unwrap()
    calls = [("mail", {"to": "bob"}), ("mailAsync", {"to": "eve"})]
    many = (await ctx.start_all(calls, then=("joined", {}))).unwrap()
    ids = (many["thenRunId"], one["runId"], many["runIds"][1])
    return ok([each.data for each in await asyncio.gather(*map(ctx.result, ids))])


@action(internal=True)
async def mail_async(ctx: AsyncActionContext, params: dict[str, str]) -> ActionResult:
    (await ctx.tools.create("mails", dict(params))).unwrap()
    return ok(params["to"])


@action
async def waits_in_vain(ctx: AsyncActionContext) -> ActionResult:
    started = (await ctx.start("raises")).unwrap()
    return await ctx.result(started["runId"])


@action
def raises(ctx: ActionContext) -> ActionResult:
    raise Busy


def test_an_async_handler_waits_for_what_it_has_started(call):
    own = calls(call, (mail, mail_async, joined, waits, waits_in_vain, raises))
    assert own("waits") == ok([["bob", "eve"], "ada", "eve"])
    assert own.started == []
    with pytest.raises(Busy):
        own("waitsInVain")


charged: list[str] = []


def charge(key: str) -> dict[str, str]:
    charged.append(key)
    return {"receipt": f"r{len(charged)}"}


@action
def order(ctx: ActionContext) -> ActionResult:
    receipt = ctx.step("charge", charge, ctx.step_key("charge"))
    approval = ctx.wait_for_signal("approved", timeout=3 * 86_400)
    if approval is None:
        return fail("nobody approved it")
    ctx.sleep("a night", 86_400)
    ctx.start("mail", {"to": approval["by"]}).unwrap()
    return ok([receipt, approval])


@action
async def order_async(ctx: AsyncActionContext) -> ActionResult:
    receipt = await ctx.step("charge", charge, ctx.step_key("charge"))
    approval = await ctx.wait_for_signal("approved", timeout=3 * 86_400)
    if approval is None:
        return fail("nobody approved it")
    await ctx.sleep("a night", 86_400)
    (await ctx.start("mail", {"to": approval["by"]})).unwrap()
    return ok([receipt, approval])


@action
async def approves(ctx: AsyncActionContext) -> ActionResult:
    return await ctx.signal(ctx.params["run"], "approved", {"by": "eve"})


@action
async def orders(ctx: AsyncActionContext) -> ActionResult:
    """Waits for a child that waits: for as long as that does."""
    child = (await ctx.start("order")).unwrap()["runId"]
    return await ctx.result(child)


@action
def asks(ctx: ActionContext) -> ActionResult:
    answer = ctx.wait_for_signal("approved", timeout=60)
    ctx.sleep("a night", 86_400)
    return ok(answer)


@action
def hoards(ctx: ActionContext) -> ActionResult:
    for number in range(ctx.params["steps"]):
        ctx.step(str(number), lambda: "x" * ctx.params["size"])
    return ok()


def test_what_was_waited_for_in_vain_comes_too_late(call):
    own = calls(call, (asks, approves))
    run_id = own("asks").unwrap()["runId"]
    own.advance(60)
    assert own("approves", {"run": run_id}) == ok({"accepted": False})
    assert own.advance(days=1) == [ok(None)]


def test_a_run_keeps_as_much_as_an_applications(call):
    own = calls(call, (hoards,))
    assert own("hoards", {"steps": 1_000, "size": 1}).success
    for steps, size in ((1_001, 1), (17, 1_000_000)):
        with pytest.raises(InvalidData, match=r"at most 1,000 steps, of 16 MiB"):
            own("hoards", {"steps": steps, "size": size})


@pytest.mark.parametrize("name", ["order", "orderAsync"])
class TestWaiting:
    @pytest.fixture
    def own(self, call):
        charged.clear()
        return calls(call, (order, order_async, orders, approves, mail))

    def test_a_run_goes_on_when_it_is_signaled_and_when_it_is_time(self, own, name):
        waits = own(name).unwrap()
        run_id = waits["runId"]
        assert waits == {"runId": run_id, "status": "waiting"}
        [waiting] = own.waiting
        assert (waiting["runId"], waiting["action"]) == (run_id, name)
        assert waiting["waitingFor"] == {"kind": "signal", "name": "approved"}
        assert own.advance(days=2) == []
        assert own.signal(run_id, "other") is None
        assert own.signal(run_id, "approved", {"by": "bob"}) == ok(waits)
        assert own.signal(run_id, "approved", {"by": "eve"}) is None  # the first one counts
        [waiting] = own.waiting
        assert waiting["waitingFor"] == {"kind": "time", "name": "a night"}
        assert 86_000 < waiting["seconds"] <= 86_400
        assert own.advance(86_000) == []
        assert own.advance(400) == [ok([{"receipt": "r1"}, {"by": "bob"}])]
        assert own.waiting == []
        assert [one["params"] for one in own.started] == [{"to": "bob"}]
        assert len(charged) == 1
        with pytest.raises(NotFound):
            own.signal(run_id, "approved")

    def test_what_does_not_come(self, own, name):
        own(name)
        assert own.advance(days=4) == [fail("nobody approved it")]

    def test_a_signal_from_another_run(self, own, name):
        run_id = own(name).unwrap()["runId"]
        assert own("approves", {"run": run_id}) == ok({"accepted": True})
        assert own("approves", {"run": run_id}) == ok({"accepted": False})
        assert own.advance() == [ok({"runId": run_id, "status": "waiting"})]
        assert own.advance(days=1) == [ok([{"receipt": "r1"}, {"by": "eve"}])]
        assert not own("approves", {"run": run_id}).success

    def test_a_parent_that_waits_for_it(self, own, name):
        assert own("orders") == fail("nobody approved it")
