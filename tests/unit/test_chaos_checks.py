"""The chaos suite's checks of what runs have started: that each can fail."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from chaos.app.starting import DECLINED, SOLD_OUT
from chaos.checks import check_calls
from chaos.findings import Finding
from chaos.load import Call
from chaos.started import check_groups, check_orders

ENDS = [["succeeded", 0], ["succeeded", 1], ["failed", DECLINED]]  # of a group of three


def kinds(findings: Iterable[Finding]) -> list[str]:
    return [finding.kind for finding in findings]


@pytest.mark.parametrize(
    ("orders", "packages", "found"),
    [
        ({"a": 1, "b": 1}, {"a": 1, "b": 1}, []),
        ({"a": 1}, {}, ["lost"]),
        ({"a": 1}, {"a": 2}, ["doubled"]),
        ({}, {"a": 1}, ["doubled"]),
        ({"refused": 1}, {"refused": 1}, ["doubled"]),
    ],
)
def test_an_order_has_its_child_if_and_only_if_it_is_committed(
    orders: Mapping[str, int], packages: Mapping[str, int], found: list[str]
) -> None:
    assert kinds(check_orders(orders, packages, {"refused"})) == found


@pytest.mark.parametrize(
    ("guests", "joins", "found"),
    [
        ({0: 1, 1: 1}, [ENDS], []),
        ({0: 1, 1: 1}, [], ["lost"]),
        ({0: 1, 1: 1}, [ENDS, ENDS], ["doubled"]),
        ({0: 1, 1: 1}, [ENDS[:2]], ["lost"]),
        ({0: 1}, [ENDS], ["lost"]),
        ({0: 1, 1: 2}, [ENDS], ["doubled"]),
        ({0: 1, 1: 1, 2: 1}, [ENDS], ["doubled"]),  # one that has failed left its record
        ({0: 1, 1: 1, 3: 1}, [ENDS], ["doubled"]),
    ],
)
def test_a_group_has_its_runs_and_one_join_with_all_ends(
    guests: Mapping[int, int], joins: list[Any], found: list[str]
) -> None:
    records = {("g", number): count for number, count in guests.items()}
    assert kinds(check_groups({"g": 3}, records, {"g": joins})) == found


def test_children_and_a_join_of_no_group_are_found() -> None:
    assert kinds(check_groups({}, {("g", 0): 1}, {"g": [ENDS]})) == ["doubled", "doubled"]


@pytest.mark.parametrize(
    ("envelope", "found"),
    [({"success": False, "error": SOLD_OUT}, []), ({"success": True}, ["lost"])],
)
def test_a_refused_order_is_to_be_told_so(envelope: dict[str, Any], found: list[str]) -> None:
    call = Call(action="placeOrder", key="k", params={"refused": True}, status=200, answered=1.0)
    call.envelope = envelope
    assert kinds(check_calls([call])) == found


def test_a_call_without_an_answer_tells_what_its_run_was_like() -> None:
    call = Call(
        action="longRun", key="k", params={}, run_id="r", status=504, held=" status running"
    )
    [finding] = check_calls([call])
    assert finding.kind == "lost"
    assert finding.text.endswith("longRun k (run r) status running")
