"""Every action that a page for users shows does what the page says, on a real database."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from doc_pages import ROOT, write_package
from flask import Flask, request
from local_http import served
from pydantic import SecretStr

from callboard.connections.mongodb import AsyncStore, Store
from callboard.log.redaction import Redactor
from callboard.log.run_log import RunLog
from callboard.registry import Registry, discover
from callboard.runs.outcome import Outcome
from callboard.runs.seal import Call
from callboard.runs.store import Claim
from callboard.sdk.results import StopHandler, fail, ok
from callboard.settings import get_settings
from callboard.testing.inline import InlineCall
from worker.runs.attempt import Attempt
from worker.runs.context import build_context
from worker.runs.handling import outcome_of_async
from worker.services import Services
from worker.tools.tools import Tools
from worker.tools.transaction import run_in_transaction

OURS = (
    "actions",
    "identity",
    "index",
    "limits",
    "migrating",
    "scaling",
    "signals",
    "starting",
    "tools",
    "transactions",
)

ITEMS = {
    "a": {"price": 12, "status": "new"},
    "b": {"price": 10, "status": "open"},
    "c": {"price": 20, "status": "open"},
    "d": {"price": 11, "status": "pending"},
}
INVITE = {"eventId": "evt_1", "attendeeId": "usr_2"}
EVENT = {"evt_1": {"attendeeIds": ["usr_1"]}}
ACCOUNTS = {"x": {"points": 5}, "y": {"points": 1}}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One call of a page's action."""

    action: str  # "page: name"
    params: dict[str, Any] = field(default_factory=dict)
    seed: dict[str, dict[str, Any]] = field(default_factory=dict)  # collection -> id -> data
    data: Any = ...  # what it answers; `...`: any data
    error: str | None = None
    leaves: tuple[str, str, Any] | None = None  # collection, record id, data afterwards


ATTENDED = ("events", "evt_1", {"attendeeIds": ["usr_1", "usr_2"]})

CASES = (
    Case(action="limits: buildReport", params={"tenant": "acme"}, data={"tenant": "acme"}),
    Case(action="index: sayHello", params={"name": "Ada"}, data={"text": "Hello, Ada, from alice"}),
    Case(
        action="actions: inviteAttendee", params=INVITE, seed={"events": EVENT}, leaves=ATTENDED
    ),
    Case(action="actions: inviteAttendee", params=INVITE, error="Record not found"),
    Case(action="actions: countEvents", seed={"events": EVENT}, data={"events": 1}),
    Case(action="actions: countEvents", params={"drafts": True}, error="Drafts are not counted"),
    Case(action="actions: myName", seed={"users": {"alice": {"name": "Alice"}}}, data="Alice"),
    Case(action="actions: myName", error="Record not found"),
    Case(action="actions: copyEvent", params={"eventId": "evt_1"}, seed={"events": EVENT}),
    Case(action="actions: copyEvent", params={"eventId": "evt_2"}, error="Record not found"),
    Case(action="actions: bookTable", params={"guests": 3}),
    Case(action="actions: bookTable", error="How many guests?"),
    Case(action="actions: bookTable", params={"guests": 9}, error="Eight sit at a table. Call us."),
    Case(action="actions: keepForecasts", params={"names": ["Bonn", "Kiel"]}, data=2,
         leaves=("forecasts", "Kiel", {"path": "forecasts/Kiel"})),
    Case(action="actions: fetchPrices", leaves=("prices", "today", {"path": "prices"})),
    Case(action="identity: listMyApps", data={"path": "api/apps"}),
    Case(
        action="migrating: inviteAttendee", params=INVITE, seed={"events": EVENT}, leaves=ATTENDED
    ),
    Case(action="scaling: exportEverything", seed={"events": EVENT}, data={"events": 1}),
    Case(action="tools: cheapItems", seed={"items": ITEMS}, data=["b", "a"]),
    Case(action="tools: processItems", seed={"items": ITEMS}, data={"processed": 1},
         leaves=("items", "d", {"price": 11, "status": "processed"})),
    Case(action="tools: itemsByStatus", seed={"items": ITEMS},
         data={"new": 1, "open": 2, "pending": 1}),
    Case(
        action="transactions: transferPoints",
        params={"source": "x", "target": "y", "points": 3},
        seed={"accounts": ACCOUNTS},
        data={"left": 2},
        leaves=("accounts", "y", {"points": 4}),
    ),
    Case(
        action="transactions: transferPoints",
        params={"source": "x", "target": "y", "points": 6},
        seed={"accounts": ACCOUNTS},
        error="Not enough points",
        leaves=("accounts", "y", {"points": 1}),
    ),
    Case(
        action="transactions: bookSeat",
        params={"seat": "1A"},
        seed={"seats": {"1A": {}}},
        leaves=("seats", "1A", {"takenBy": "alice"}),
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def registries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Registry]]:
    """What each page declares, by the page's name."""
    folder = tmp_path_factory.mktemp("pages")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield {name: discover(write_package(ROOT / "docs" / f"{name}.md", folder)) for name in OURS}


@pytest.fixture
def upstream() -> Iterator[str]:
    """An upstream that answers every path with itself."""
    app = Flask("upstream")
    app.add_url_rule("/<path:path>", view_func=lambda path: {"path": path})
    with served(app) as url:
        yield url


@pytest.fixture
def run(
    variables: dict[str, str], upstream: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Any]]:
    """Run an action as a worker does, short of the run record: ``run(registry, name, params)``."""
    given = {**variables, "UPSTREAMS": f"shop={upstream},platform={upstream},weather={upstream}"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()

    def run(registry: Registry, name: str, params: dict[str, Any]) -> Any:
        action = registry.get(name)
        attempt = Attempt(
            run_id="0" * 32,
            action=action,
            holder="h",
            claim=Claim(state="claimed", attempt=1),
            call=Call(caller="alice", jwt="a.b.c", params=params),
            deadline=time.monotonic() + 60,
            log=RunLog(Redactor([])),
        )
        services = Services(get_settings(), registry)
        opened.append(services.store)
        if action.is_async:
            return on_loop(services, attempt)

        def handler(transaction: Any = None) -> Any:
            context, _ = build_context(services, attempt, lambda session: None, transaction)
            return ended(lambda: action.run(context))

        if not action.transaction:
            return handler()
        return run_in_transaction(
            database=services.store.database, run_id=attempt.run_id, action=name,
            deadline=attempt.deadline, before_start=lambda session: None, body=handler,
        )  # fmt: skip

    opened: list[Store] = []
    yield run
    for store in opened:
        store.close()
    get_settings.cache_clear()


def on_loop(services: Services, attempt: Attempt) -> Any:
    """What an async handler returns; it notes nothing in the run record."""

    async def outcome() -> Outcome:
        store = AsyncStore.of(services.settings)
        try:
            return await outcome_of_async(services, attempt, cast(Any, None), store)
        finally:
            await store.close()

    told = asyncio.run(outcome()).envelope()
    return ok(told["data"]) if told["success"] else fail(told["error"])


def ended(handler: Callable[[], Any]) -> Any:
    """What the handler returns, or stopped with."""
    try:
        result = handler()
    except StopHandler as stop:
        result = stop.result
    assert Outcome.of(result, "run").http_status == 200
    return result


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.action)
def test_does_what_the_page_says(
    case: Case, registries: dict[str, Registry], run: Callable[..., Any], tools: Tools
) -> None:
    for coll, rows in case.seed.items():
        for record_id, data in rows.items():
            tools.create(coll, data, record_id).unwrap()
    page, name = case.action.split(": ")
    result = run(registries[page], name, case.params)
    assert result.error == case.error
    if case.data is not ...:
        assert result.data == case.data
    if case.leaves:
        coll, record_id, data = case.leaves
        assert tools.get(coll, record_id).unwrap()["record"]["data"] == data


def test_every_action_of_these_pages_has_a_case(registries: dict[str, Registry]) -> None:
    shown = {f"{page}: {name}" for page, found in registries.items() for name in found.actions}
    assert shown - STARTING - WAITING == {case.action for case in CASES}


WAITING = {  # of the tests below, as the next
    *("signals: requestLeave", "signals: claimExpenses", "signals: decideExpenses"),
}
STARTING = {
    *("starting: inviteAttendee", "starting: remind", "starting: sendMail"),
    *("starting: signUp", "starting: sendTips", "starting: countUsers"),
    *("starting: sendNewsletter", "starting: sendIssue", "starting: sumUp"),
    *("starting: bestOffer", "starting: askShop"),
}


@pytest.fixture
def shops_and_mails() -> Iterator[str]:
    """An upstream with shops, and a gateway that sends mails."""
    app = Flask("shops and mails")
    app.get("/<shop>", endpoint="shop")(lambda shop: {"price": len(shop)})
    app.post("/api/integrations/mail/send", endpoint="mail")(lambda: {"sent": request.json})
    with served(app) as url:
        yield url


@pytest.fixture
def on_page(
    call: InlineCall, registries: dict[str, Registry], shops_and_mails: str
) -> Callable[[str], InlineCall]:
    """Calls the actions of a page."""
    there = {"integrations_url": shops_and_mails, "upstreams": {"shop": shops_and_mails}}
    settings = call.settings.model_copy(update={**there, "app_owner_jwt": SecretStr("a.b.c")})
    return lambda page: replace(call, registry=registries[page], settings=settings)


@pytest.fixture
def starting(on_page: Callable[[str], InlineCall]) -> InlineCall:
    return on_page("starting")


@pytest.fixture
def signals(on_page: Callable[[str], InlineCall]) -> InlineCall:
    return on_page("signals")


def seeded(call: InlineCall, coll: str, rows: dict[str, Any]) -> None:
    for record_id, data in rows.items():
        call.tools.create(coll, data, record_id).unwrap()


def test_an_invitation_starts_its_mail_and_a_reminder(starting: InlineCall) -> None:
    soon = datetime.now(UTC) + timedelta(days=9)
    event = {"title": "Tea", "attendeeIds": [], "startsAt": soon.isoformat()}
    seeded(starting, "events", {"evt_1": event})
    starting("inviteAttendee", INVITE).unwrap()
    assert [start["action"] for start in starting.started] == ["sendMail", "remind"]
    assert starting.run_started() == [
        ok({"sent": {"to": "usr_2", "subject": "You are invited: Tea"}}),
        ok({"sent": {"to": "usr_2", "subject": "Tomorrow: Tea"}}),
    ]


def test_the_tips_come_once(starting: InlineCall) -> None:
    for _ in range(2):
        starting("signUp", {"name": "Ada"}).unwrap()
    actions = [start["action"] for start in starting.started]
    assert sorted(actions) == ["countUsers", "countUsers", "sendTips"]
    assert all(result.success for result in starting.run_started())
    assert starting.tools.get("statistics", "today").unwrap()["record"]["data"] == {"users": 1}


def test_a_newsletter_is_summed_up_when_all_is_sent(starting: InlineCall) -> None:
    readers = {name: {"subscribed": name != "eve"} for name in ("ada", "bob", "eve")}
    seeded(starting, "users", readers)
    starting("sendNewsletter").unwrap()
    assert len(starting.run_started()) == 3
    assert starting.tools.query("mails").unwrap()["count"] == 2
    report = starting.tools.get("reports", "newsletter").unwrap()["record"]["data"]
    assert report == {"failed": []}


def test_the_lowest_offer_is_the_best(starting: InlineCall) -> None:
    assert starting("bestOffer") == ok(4)


def test_leave_is_approved_in_time_or_not(signals: InlineCall) -> None:
    run_id = signals("requestLeave").unwrap()["runId"]
    assert signals.waiting[0]["waitingFor"] == {"kind": "signal", "name": "approve"}
    assert signals.signal(run_id, "approve") == ok({"approved": True})
    assert signals.tools.query("leaves").unwrap()["count"] == 1
    signals("requestLeave")
    assert signals.advance(days=3) == [fail("Nobody has approved it", "not_approved")]


def test_expenses_are_decided_by_a_run_of_the_owners(signals: InlineCall) -> None:
    deciding = signals("claimExpenses", {"amount": 12}).unwrap()["runId"]
    assert signals.started[0]["caller"] == "owner"
    signals.run_started()
    question = signals.tools.query("questions").unwrap()["records"][0]["data"]
    assert (question["by"], question["amount"]) == ("alice", 12)
    assert f"/api/runs/{deciding}/signals/pay?signature=" in question["link"]
    assert signals.signal(deciding, "pay") == ok({"paid": True})
