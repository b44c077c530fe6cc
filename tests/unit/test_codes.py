"""Codes: what a failure may have, and that Callboard's own are documented."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from api.app import create_app
from callboard import ActionContext, ActionResult, action, fail, ok
from callboard.codes import OWN_CODES, TOOL_CODES
from callboard.registry import Registry
from callboard.settings import Settings

DOCS = Path(__file__).parents[2] / "docs"
SETTINGS = {
    "REDIS_URL": "redis://127.0.0.1:1/0",  # nothing answers there
    "MONGODB_URI": "mongodb://127.0.0.1:1/test",
    "SECRET_KEY": "a-secret-key-of-at-least-32-characters",
    "JWT_SECRET": "test-secret-of-more-than-thirty-two-bytes",  # that of `make_token`
    "CALLBOARD_ENV": "development",
    "OWNER_USER_ID": "owner",
}


class Reason(enum.StrEnum):
    FULL = "no_seats"


@action
def count(ctx: ActionContext, params: dict[str, int]) -> ActionResult:
    return ok()


@action(owner_only=True)
def settle(ctx: ActionContext) -> ActionResult:
    return ok()


@pytest.mark.parametrize("code", ["no_seats", "a", "a" * 64, "v2", Reason.FULL])
def test_a_handler_names_its_own(code: str) -> None:
    failure = fail("No seats are left", code)
    assert failure.code == code
    assert failure.envelope() == {"success": False, "error": "No seats are left", "code": code}


@pytest.mark.parametrize("code", ["", "A", "no-seats", "2nd", "_a", "a" * 65, "a\n", "é", 7, ["a"]])
def test_what_is_no_code_is_an_error_that_names_it(code: Any) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(code)[:80])):
        fail("No", code)


def test_without_one_it_has_failed() -> None:
    assert fail("No").code == "failed"
    assert fail("No") == fail("No", "failed") != fail("No", "no_seats")
    assert ActionResult(success=False, error="No").envelope()["code"] == "failed"


def test_a_success_has_none() -> None:
    assert ok(1).code is None
    assert ok(1).envelope() == {"success": True, "data": 1}


@pytest.mark.parametrize(("page", "codes"), [("actions.md", OWN_CODES), ("tools.md", TOOL_CODES)])
def test_each_is_documented(page: str, codes: dict[str, str]) -> None:
    text = (DOCS / page).read_text()
    for code, meaning in codes.items():
        assert fail("No", code).code == code
        assert f"| `{code}` | {meaning} |" in text


@pytest.fixture
def client() -> FlaskClient:
    actions = {found.name: found for found in (count, settle)}
    return create_app(Settings(**SETTINGS), Registry(actions=actions)).test_client()


@pytest.mark.parametrize(
    ("method", "path", "sent", "status", "code"),
    [
        ("POST", "/api/actions/count", {"sub": None}, 401, "unauthorized"),
        ("POST", "/api/actions/count", {"token": "no.such.token"}, 401, "unauthorized"),
        ("POST", "/api/actions/cuont", {}, 404, "unknown_action"),
        ("POST", "/api/actions/settle", {}, 403, "forbidden"),
        ("POST", "/api/actions/count", {"data": "{"}, 400, "bad_request"),
        ("POST", "/api/actions/count", {"data": "[]"}, 400, "bad_request"),
        ("POST", "/api/actions/count", {"data": "{}", "type": "text/plain"}, 415, "bad_request"),
        ("POST", "/api/actions/count", {"data": " " * 1_048_577}, 413, "too_large"),
        ("POST", "/api/actions/count", {"data": '{"a": "b"}'}, 422, "invalid_params"),
        ("POST", "/api/actions/count", {}, 503, "unavailable"),  # no broker
        ("GET", "/api/actions/count", {}, 405, "bad_request"),
        ("GET", "/api/no/such/path", {}, 404, "not_found"),
        ("GET", "/docs/static/no.js", {}, 404, "not_found"),
        ("GET", "/docs/swagger/no.js", {}, 404, "not_found"),
        ("GET", "/console/no.js", {}, 404, "not_found"),
        ("GET", "/api/runs?status=odd", {}, 400, "bad_request"),
        ("GET", "/readyz", {}, 503, "unavailable"),
        ("POST", "/api/batch", {"data": "{}"}, 400, "bad_request"),
    ],
)
def test_each_refusal_has_one(
    client: FlaskClient,
    make_token: Callable[..., str],
    method: str,
    path: str,
    sent: dict[str, Any],
    status: int,
    code: str,
) -> None:
    token = sent.get("token") or (make_token() if "sub" not in sent else None)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    data, kind = sent.get("data"), sent.get("type", "application/json")
    response = client.open(path, method=method, headers=headers, data=data, content_type=kind)
    assert (response.status_code, response.get_json().get("code")) == (status, code)
    assert code in OWN_CODES


def test_so_has_a_fault_of_its_own(
    client: FlaskClient, make_token: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def raises(*given: Any) -> Any:
        raise RuntimeError("a secret")

    services = client.application.extensions["callboard"]
    monkeypatch.setattr(type(services), "limit_rate", raises)
    headers = {"Authorization": f"Bearer {make_token()}"}
    response = client.post("/api/actions/count", headers=headers)
    told = {"success": False, "error": "Internal error", "code": "internal_error"}
    assert (response.status_code, response.get_json()) == (500, told)
