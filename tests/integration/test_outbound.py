"""Integrations and forwarding against a real server that records what it got."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from flask import Flask, Response, redirect, request
from local_http import served

from callboard import ok
from callboard.action import action
from callboard.registry import Registry, discover
from callboard.runs import Claim
from callboard.seal import Call
from callboard.settings import Settings
from worker.execution import Attempt
from worker.outbound import MAX_RESPONSE_BYTES, Outbound
from worker.services import Services

OWNER, CALLER = "owner-jwt", "caller-jwt"


@action
def any_action(ctx: Any) -> Any:
    return ok()


class Upstream:
    """What was asked of it, and how it answers."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.status = 200
        self.body: Any = {"success": True, "data": {"text": "hi"}}
        self.elsewhere = ""

    def app(self) -> Flask:
        app = Flask("upstream")

        @app.route("/<path:path>", methods=["GET", "POST"])
        def answer(path: str) -> Any:
            headers = {name.lower(): value for name, value in request.headers.items()}
            self.asked.append({"path": f"/{path}", "headers": headers, "body": request.get_data()})
            if path == "away":
                return redirect(f"{self.elsewhere}/landed")
            if path == "within":
                return redirect("/landed")
            if path == "circle":
                return redirect("/circle")
            if path == "slow":
                time.sleep(5)
            if path == "large":
                return Response(b"x" * (MAX_RESPONSE_BYTES + 1))
            body = self.body if isinstance(self.body, bytes) else json.dumps(self.body)
            return Response(body, self.status)

        return app


@pytest.fixture
def upstream() -> Upstream:
    return Upstream()


@pytest.fixture
def upstream_url(upstream: Upstream) -> Iterator[str]:
    with served(upstream.app()) as url:
        yield url


@pytest.fixture
def outbound(upstream_url: str) -> Any:
    """Builds the outgoing side of a run: ``outbound(jwt=..., seconds=...)``."""

    def build(
        *, jwt: str | None = CALLER, seconds: float = 10.0, scheduled: bool = False, **more: Any
    ) -> Outbound:
        variables = {
            "REDIS_URL": "redis://127.0.0.1:1/0",
            "MONGODB_URI": "mongodb://127.0.0.1:1/never",
            "SECRET_KEY": "k" * 40,
            "JWT_SECRET": "j" * 40,
            "APP_OWNER_JWT": OWNER,
            "INTEGRATIONS_URL": upstream_url,
            "UPSTREAMS": f"platform={upstream_url},base={upstream_url}/base",
            **more,
        }
        registry = Registry(
            actions={"anyAction": any_action},
            integrations={"google": "user", "openai": "developer"},
        )
        attempt = Attempt(
            run_id="run-1",
            action=any_action,
            holder="h",
            claim=Claim(state="claimed", attempt=1),
            call=Call(caller="alice" if jwt else None, jwt=jwt, scheduled=scheduled),
            deadline=time.monotonic() + seconds,
        )
        settings = Settings(**{name: value for name, value in variables.items() if value})
        return Outbound(Services(settings, registry), attempt)

    return build


class TestBilling:
    @pytest.mark.parametrize(
        ("endpoint", "jwt", "scheduled", "paid_by"),
        [
            ("openai/chat-completion", CALLER, False, OWNER),
            ("openai/chat-completion", None, False, OWNER),
            ("unlisted/thing", CALLER, False, OWNER),
            ("google/calendar", CALLER, False, CALLER),
            ("google/calendar", None, True, OWNER),
        ],
    )
    def test_the_right_token_pays(
        self, outbound: Any, upstream: Upstream, endpoint: str, jwt: str | None,
        scheduled: bool, paid_by: str,
    ) -> None:  # fmt: skip
        result = outbound(jwt=jwt, scheduled=scheduled).integration(endpoint, {"q": 1})
        assert result.unwrap() == {"text": "hi"}
        [asked] = upstream.asked
        assert asked["path"] == f"/api/integrations/{endpoint}"
        assert asked["headers"]["authorization"] == f"Bearer {paid_by}"
        assert json.loads(asked["body"]) == {"q": 1}

    def test_an_anonymous_caller_is_not_billed_and_not_sent(
        self, outbound: Any, upstream: Upstream
    ) -> None:
        assert outbound(jwt=None).integration("google/calendar").error == "Unauthorized"
        assert outbound(APP_OWNER_JWT="").integration("openai/x").error == "Unauthorized"
        assert upstream.asked == []

    @pytest.mark.parametrize(
        "endpoint",
        ["", "google", "google/", "/google/x", "google/x/y", "google/../x", "../x", "google/..",
         "google/x?y", "google/x#y", "google/%2e%2e", "http://evil/x", "goo gle/x", "google/x\n",
         "google\\x", None, 7],
    )  # fmt: skip
    def test_an_endpoint_is_two_plain_segments(
        self, outbound: Any, upstream: Upstream, endpoint: Any
    ) -> None:
        result = outbound().integration(endpoint)
        assert "two segments" in (result.error or "")
        assert upstream.asked == []


class TestGateway:
    @pytest.mark.parametrize(
        ("status", "body", "error"),
        [
            (200, {"success": False, "error": "No credit"}, "No credit"),
            (402, {"success": False, "error": "No credit"}, "No credit"),
            (401, {}, "Unauthorized"),
            (500, {}, "answered 500"),
            (200, b"<html>", "no JSON"),
        ],
    )
    def test_failures_are_told(
        self, outbound: Any, upstream: Upstream, status: int, body: Any, error: str
    ) -> None:
        upstream.status, upstream.body = status, body
        assert error in outbound().integration("openai/x").error

    def test_a_body_without_an_envelope_is_the_data(
        self, outbound: Any, upstream: Upstream
    ) -> None:
        upstream.body = {"choices": [1]}
        assert outbound().integration("openai/x").data == {"choices": [1]}

    def test_each_call_has_a_key_that_a_rerun_repeats(
        self, outbound: Any, upstream: Upstream
    ) -> None:
        for run in (outbound(), outbound()):
            for body in ({"a": 1}, {"a": 1}, {"a": 2}):
                run.integration("openai/x", body)
        keys = [asked["headers"]["idempotency-key"] for asked in upstream.asked]
        assert keys[:3] == keys[3:]
        assert len(set(keys)) == 3

    def test_a_gateway_that_is_away_is_told(self, outbound: Any) -> None:
        result = outbound(INTEGRATIONS_URL="http://127.0.0.1:1").integration("openai/x")
        assert "ConnectError" in result.error
        assert "INTEGRATIONS_URL" in outbound(INTEGRATIONS_URL="").integration("openai/x").error

    def test_data_that_is_no_json_is_told(self, outbound: Any, upstream: Upstream) -> None:
        assert "not JSON" in outbound().integration("openai/x", {"a": {1}}).error
        assert upstream.asked == []


class TestFetch:
    def test_the_callers_token_goes_along(self, outbound: Any, upstream: Upstream) -> None:
        response = outbound().fetch("platform", "/api/apps?x=1")
        assert response.json() == upstream.body
        assert upstream.asked[0]["headers"]["authorization"] == f"Bearer {CALLER}"
        assert outbound().fetch("base", "/x", method="POST", json={"a": 1}).status_code == 200
        assert (upstream.asked[1]["path"], upstream.asked[1]["body"]) == ("/base/x", b'{"a":1}')

    def test_a_handler_cannot_send_another_token_or_host(
        self, outbound: Any, upstream: Upstream
    ) -> None:
        headers = {"authorization": "Bearer x", "Host": "evil", "Cookie": "a=b", "X-Mine": "1"}
        outbound(jwt=None).fetch("platform", "/x", headers=headers)
        [asked] = upstream.asked
        assert "authorization" not in asked["headers"]
        assert "cookie" not in asked["headers"]
        assert asked["headers"]["host"].startswith("127.0.0.1:")
        assert asked["headers"]["x-mine"] == "1"

    def test_nothing_of_the_token_hangs_on_the_response(self, outbound: Any) -> None:
        response = outbound().fetch("platform", "/x")
        assert "authorization" not in response.request.headers
        assert CALLER not in repr(vars(response)) + repr(response.request.headers)

    @pytest.mark.parametrize(
        "path",
        ["", "x", "//evil.test/x", "http://evil.test/", "/\\evil", "\\\\evil", "/a/../b", "/..",
         "/a/%2e%2e/b", "/a/.%2E/b", "/a%2f..%2fb", "/a%5c..", "/a b", "/a\r\nX: 1", "/a\0",
         "/a#b", "/é", "@evil.test/x", ":80/x", "/%0d%0aX:1", None, 7],
    )  # fmt: skip
    def test_a_path_leads_nowhere_else(self, outbound: Any, upstream: Upstream, path: Any) -> None:
        with pytest.raises(ValueError, match="path"):
            outbound().fetch("platform", path)
        assert upstream.asked == []

    def test_an_unknown_upstream_is_told(self, outbound: Any) -> None:
        with pytest.raises(ValueError, match=r"'evil'; UPSTREAMS names base, platform"):
            outbound().fetch("evil", "/x")

    def test_a_redirect_within_the_origin_is_followed(
        self, outbound: Any, upstream: Upstream
    ) -> None:
        assert outbound().fetch("platform", "/within").status_code == 200
        assert upstream.asked[1]["headers"]["authorization"] == f"Bearer {CALLER}"
        with pytest.raises(httpx.TooManyRedirects):
            outbound().fetch("platform", "/circle")

    def test_a_redirect_to_another_origin_gets_nothing(
        self, outbound: Any, upstream: Upstream
    ) -> None:
        other = Upstream()
        refused = pytest.raises(httpx.RequestError, match="another origin")
        with served(other.app()) as upstream.elsewhere, refused:
            outbound().fetch("platform", "/away")
        assert other.asked == []

    def test_size_and_time_are_bounded(self, outbound: Any) -> None:
        with pytest.raises(httpx.RequestError, match="larger than 10 MiB"):
            outbound().fetch("platform", "/large")
        started = time.monotonic()
        with pytest.raises(httpx.TimeoutException):
            outbound(seconds=0.3).fetch("platform", "/slow")
        assert time.monotonic() - started < 3


@pytest.mark.parametrize("url", ["http://upstream.test", "ftp://x", "https://u:p@x", "x"])
def test_an_upstream_is_https_outside_loopback(url: str, outbound: Any) -> None:
    with pytest.raises(ValueError, match="UPSTREAMS"):
        outbound(UPSTREAMS=f"platform={url}")


@pytest.mark.parametrize(
    ("status", "answered"),
    [
        (200, {"success": True, "data": ["mine"]}),
        (403, {"success": False, "error": "Upstream 403"}),
    ],
)
def test_the_example_lists_the_callers_apps(
    outbound: Any, upstream: Upstream, status: int, answered: dict[str, Any]
) -> None:
    upstream.status, upstream.body = status, ["mine"]
    context = SimpleNamespace(fetch=outbound().fetch)
    list_my_apps = discover("actions").get("listMyApps")
    assert list_my_apps.handler(context).envelope() == answered
    assert upstream.asked[0]["headers"]["authorization"] == f"Bearer {CALLER}"
