"""The pages on long runs and on changing code do what they say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from doc_pages import ROOT, write_package
from flask import Flask, request
from local_http import served
from pydantic import SecretStr

from callboard.registry import discover
from callboard.sdk.results import ok
from callboard.testing.inline import InlineCall

SHOWN = ("placeOrder", {"order": "o1"})


@pytest.fixture
def asked() -> list[Any]:
    """What the third parties were asked."""
    return []


@pytest.fixture
def third_parties(asked: list[Any]) -> Iterator[str]:
    app = Flask("third parties")

    def answer(api: str, what: str) -> dict[str, str]:
        asked.append((f"{api}/{what}", request.json))
        return {"id": f"r{len(asked)}"}

    app.post("/api/integrations/<api>/<what>")(answer)
    with served(app) as url:
        yield url


@pytest.fixture
def page(
    call: InlineCall, third_parties: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], InlineCall]:
    """Calls the actions of a page."""
    there = {"integrations_url": third_parties, "app_owner_jwt": SecretStr("a.b.c")}
    settings = call.settings.model_copy(update=there)
    monkeypatch.syspath_prepend(tmp_path)

    def of(name: str) -> InlineCall:
        registry = discover(write_package(ROOT / "docs" / f"{name}.md", tmp_path))
        return replace(call, registry=registry, settings=settings)

    return of


def test_an_order_is_charged_once_shipped_and_reminded_of(
    page: Callable[[str], InlineCall], asked: list[Any]
) -> None:
    call = page("long-runs")
    run = call(*SHOWN).unwrap()
    assert call.waiting[0]["waitingFor"] == {"kind": "signal", "name": "approved"}
    assert call.signal(run["runId"], "approved", {"by": "bob"}) == ok(run)
    assert call.tools.get("orders", "o1").unwrap()["record"]["data"]["state"] == "shipped"
    assert [what for what, _ in asked] == ["payments/charge"]
    assert call.advance(days=1) == [ok({"receipt": "r1"})]
    assert [what for what, _ in asked] == ["payments/charge", "mail/send"]


def test_an_order_that_nobody_approves_is_paid_back(
    page: Callable[[str], InlineCall], asked: list[Any]
) -> None:
    call = page("long-runs")
    call(*SHOWN).unwrap()
    [result] = call.advance(days=3)
    assert result.code == "not_approved"
    assert [what for what, _ in asked] == ["payments/charge", "payments/refund"]
    assert asked[0][1]["idempotencyKey"] == asked[1][1]["idempotencyKey"]


@pytest.mark.parametrize("sent", ["accept", "decline", None])
def test_an_offer_is_decided_by_what_comes_first(
    page: Callable[[str], InlineCall], sent: str | None
) -> None:
    call = page("long-runs")
    run = call("decide").unwrap()
    result = call.signal(run["runId"], sent) if sent else call.advance(days=3)[0]
    assert result == ok({"decision": sent or "expired"})


def test_an_invoice_keeps_its_layout(page: Callable[[str], InlineCall]) -> None:
    call = page("changing-code")
    call("sendInvoice").unwrap()
    assert call.advance(days=30) == [ok({"layout": "2026"})]
