"""An order over days: ``pytest`` in this folder. Callboard brings `call`."""

import pytest

from callboard import fail, ok

ORDER = {"orderId": "o1", "item": "tea", "price": 4.5}


@pytest.fixture
def placed(call):
    """The id of a run that waits for its approval."""
    call("restock", {"item": "tea", "left": 1}, as_user="owner").unwrap()
    run = call("placeOrder", ORDER, as_user="owner").unwrap()
    assert run["status"] == "waiting"
    return run["runId"]


def rows(call, coll):
    return [record["data"] for record in call.tools.query(coll).unwrap()["records"]]


def test_an_approved_order_is_shipped_and_reminded_of_a_week_later(call, placed):
    assert rows(call, "orders") == [{"item": "tea", "state": "waits for approval"}]
    call.signal(placed, "approved", {"by": "bob"})
    assert rows(call, "orders") == [{"item": "tea", "state": "shipped, approved by bob"}]
    assert call.advance(days=6) == []
    [result] = call.advance(days=1)
    assert result.success
    assert rows(call, "mails") == [{"subject": "How do you like your tea?"}]
    assert rows(call, "charges") == [{"amount": 4.5}]
    assert rows(call, "stock") == [{"left": 0}]


def test_what_nobody_approves_is_paid_back(call, placed):
    [result] = call.advance(days=3)
    assert result == fail("Nobody has approved the order in three days", "not_approved")
    assert len(rows(call, "refunds")) == len(rows(call, "charges")) == 1
    assert rows(call, "stock") == [{"left": 1}]
    assert rows(call, "reservations") == []


def test_what_is_sold_out_is_not_charged(call, placed):
    assert call("placeOrder", {**ORDER, "orderId": "o2"}, as_user="owner") == fail(
        "Sold out", "sold_out"
    )
    assert len(rows(call, "charges")) == 1


def test_two_orders_wait_side_by_side(call, placed):
    call.tools.create("stock", {"left": 1}, "tea").unwrap()
    other = call("placeOrder", {**ORDER, "orderId": "o2"}, as_user="owner").unwrap()["runId"]
    assert call.signal(other, "approved", {"by": "eve"}) == ok(
        {"runId": other, "status": "waiting"}
    )
    assert [run["waitingFor"]["kind"] for run in call.waiting] == ["signal", "time"]
