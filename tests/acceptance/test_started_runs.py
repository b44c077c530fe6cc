"""Runs that start runs, with the real processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from local_stack import Stack
from pymongo import MongoClient
from pymongo.database import Database

Eventually = Callable[..., None]


@pytest.fixture
def database(app_stack: Stack) -> Any:
    environment = app_stack.announced["environment"]
    with MongoClient[dict[str, Any]](environment["MONGODB_URI"]) as client:
        yield client.get_default_database()


@pytest.fixture
def me() -> str:
    """Whose runs these are."""
    return uuid4().hex


def traces(database: Database[Any], by: str, collection: str = "started") -> list[dict[str, Any]]:
    return [row["data"] for row in database[collection].find({"data.by": by})]


def test_what_a_transaction_starts_runs_when_it_has_committed(
    app_stack: Stack, database: Database[Any], me: str, eventually: Eventually
) -> None:
    assert not app_stack.call("startCommitted", {"by": me, "fail": True}).json()["success"]
    run_id = app_stack.call("startCommitted", {"by": me}).json()["data"]["runId"]
    eventually(lambda: traces(database, me))
    assert traces(database, me) == [{"by": me, "runId": run_id}]


def test_later_is_later(
    app_stack: Stack, database: Database[Any], me: str, eventually: Eventually
) -> None:
    run_id = app_stack.call("startCommitted", {"by": me, "delay": 2}).json()["data"]["runId"]
    eventually(lambda: traces(database, me))
    assert traces(database, me) == [{"by": me, "runId": run_id}]


def test_a_join_starts_once_when_all_have_ended(
    app_stack: Stack, database: Database[Any], me: str, eventually: Eventually
) -> None:
    made = app_stack.call("startAndJoin", {"by": me, "n": 40}).json()["data"]
    assert len(made["runIds"]) == 40
    eventually(lambda: traces(database, me, "joins"))
    assert traces(database, me, "joins") == [
        {"by": me, "ends": ["failed", *["succeeded"] * 39]},
    ]
    assert sorted(row["runId"] for row in traces(database, me)) == sorted(made["runIds"])


def test_an_async_handler_waits_for_its_child(app_stack: Stack, me: str) -> None:
    assert app_stack.call("startAndWait", {"by": me}).json() == {"success": True, "data": me}


def test_no_client_reaches_an_internal_action(app_stack: Stack, me: str) -> None:
    response = app_stack.call("allStarted", {"by": me})
    assert response.status_code == 404
    assert "allStarted" not in str(response.json()["error"]).replace("'allStarted'.", "")
