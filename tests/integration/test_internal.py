"""``/api/internal``: internal actions are the owner's to start, and unknown to everybody else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient

from callboard.runs.store import Runs


@pytest.fixture
def ask(api: Callable[..., FlaskClient], make_token: Callable[..., str]) -> Callable[..., Any]:
    """Ask as somebody: ``ask("POST", "/api/internal/hidden", "owner", json={})``."""
    client = api()

    def ask(method: str, path: str, sub: str | None = "owner", **options: Any) -> Any:
        headers = {"Authorization": f"Bearer {make_token(sub)}"} if sub else {}
        return client.open(path, method=method, headers=headers, **options)

    return ask


def test_the_owner_starts_one_as_its_caller(ask: Any, runs: Runs) -> None:
    response = ask("POST", "/api/internal/hidden", json={"n": 1})
    assert response.status_code == 202
    run_id = response.get_json()["data"]["runId"]
    assert response.headers["Run-Id"] == run_id
    assert response.headers["Location"] == f"/api/runs/{run_id}"
    record = runs.read(run_id)
    assert record is not None
    assert (record.action, record.caller, record.status) == ("hidden", "owner", "queued")
    assert record.call is not None
    assert record.call.params == {"n": 1}


def test_the_owner_sees_which_there_are(ask: Any) -> None:
    [action] = ask("GET", "/api/internal").get_json()["data"]["actions"]
    assert (action["name"], action["params"]) == ("hidden", {"type": "object"})


@pytest.mark.parametrize("name", ["hidden", "work", "nope"])
def test_nobody_else_learns_whether_there_is_one(ask: Any, name: str) -> None:
    for sub, status in (("alice", 403), (None, 401)):
        told = ask("POST", f"/api/internal/{name}", sub, json={})
        assert (told.status_code, "hidden" in told.text) == (status, False)
    assert ask("GET", "/api/internal", "alice").status_code == 403
    assert ask("GET", "/api/internal", None).status_code == 401


@pytest.mark.parametrize("name", ["work", "nope", "hiddem"])
def test_it_is_for_internal_actions_alone(ask: Any, name: str) -> None:
    response = ask("POST", f"/api/internal/{name}", json={})
    assert response.status_code == 404
    assert "Unknown action" in response.get_json()["error"]


def test_a_wrong_body_is_refused_as_for_every_call(ask: Any) -> None:
    path = "/api/internal/hidden"
    assert ask("POST", path, json=[1]).status_code == 400
    assert ask("POST", path, data="{}", content_type="text/plain").status_code == 415
    assert ask("POST", path, data="x" * 1_048_577, content_type="text/plain").status_code == 413
    assert ask("GET", path).status_code == 405


def test_as_a_call_it_stays_unknown_to_the_owner_too(ask: Any) -> None:
    assert ask("POST", "/api/actions/hidden", json={}).status_code == 404
