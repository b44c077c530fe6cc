"""The edge of the API: rate limit, cross-origin requests, and what is served in production."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from flask.testing import FlaskClient
from pydantic import ValidationError

from api.call.limits import network
from callboard.stack.ports import free_port

Api = Callable[..., FlaskClient]
APP = "https://app.example.com"


@pytest.fixture
def as_user(make_token: Callable[..., str]) -> Callable[..., dict[str, str]]:
    """The headers of a call that is not waited for: ``as_user("alice")``."""

    def headers(sub: str = "alice", **more: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {make_token(sub)}", "Prefer": "respond-async", **more}

    return headers


class TestRateLimit:
    def test_each_caller_has_his_own(
        self, api: Api, as_user: Callable[..., Any], redis_client: redis.Redis
    ) -> None:
        client = api(CALLBOARD_RATE_LIMIT="2/minute")

        def call(sub: str) -> Any:
            return client.post("/api/actions/work", headers=as_user(sub))

        assert [call("alice").status_code for _ in range(3)] == [202, 202, 429]
        refused = call("alice")
        assert 1 <= int(refused.headers["Retry-After"]) <= 60
        assert "Run-Id" not in refused.headers
        assert refused.get_json() == {
            "success": False,
            "error": "Too many calls: 2 per 1 minute are allowed. Slow down.",
            "code": "rate_limited",
        }
        assert call("bob").status_code == 202
        assert redis_client.llen("callboard") == 3
        keys = [key.decode() for key in redis_client.scan_iter("callboard:rate*")]
        assert keys
        assert not any("alice" in key for key in keys)
        assert all(redis_client.ttl(key) > 0 for key in keys)

    def test_it_comes_after_400_and_before_422(self, api: Api, as_user: Callable[..., Any]) -> None:
        client = api(CALLBOARD_RATE_LIMIT="1/minute")

        def status(path: str = "strict", **options: Any) -> int:
            given = {"headers": as_user(), "json": {}, **options}
            return client.post(f"/api/actions/{path}", **given).status_code

        assert status(data=b"nonsense", json=None, content_type="application/json") == 400
        assert [status(), status()] == [422, 429]
        assert status("nothing") == 404
        bad = status(data=b"nonsense", json=None, content_type="application/json")
        assert bad == 400

    def test_who_waits_as_told_is_served_again(
        self, api: Api, as_user: Callable[..., Any], eventually: Callable[..., None]
    ) -> None:
        client = api(CALLBOARD_RATE_LIMIT="2/second; 100/minute")
        until = time.monotonic() + 60
        response = client.post("/api/actions/work", headers=as_user())
        while response.status_code == 202:
            assert time.monotonic() < until
            response = client.post("/api/actions/work", headers=as_user())
        told = int(response.headers["Retry-After"])
        eventually(
            lambda: client.post("/api/actions/work", headers=as_user()).status_code == 202,
            within=told + 10,  # and not a minute, in which the other limit is
        )

    def test_callers_without_a_token_are_known_by_their_address(self, api: Api) -> None:
        client = api(CALLBOARD_RATE_LIMIT="1/minute", CALLBOARD_TRUSTED_PROXIES="1")

        def call(address: str) -> int:
            headers = {"X-Forwarded-For": address, "Prefer": "respond-async"}
            return client.post("/api/actions/open", headers=headers).status_code

        assert [call("192.0.2.1"), call("192.0.2.1"), call("192.0.2.2")] == [202, 429, 202]

    def test_every_route_is_counted(self, api: Api, as_user: Callable[..., Any]) -> None:
        client = api(CALLBOARD_RATE_LIMIT="2/minute", CALLBOARD_ENV="development")
        routes = [
            (re.sub("<[a-z:_]+>", "x", rule.rule), method)
            for rule in client.application.url_map.iter_rules()
            for method in sorted((rule.methods or set()) & {"GET", "POST", "PUT", "DELETE"})
            if rule.rule.startswith("/api/") and rule.rule != "/api/actions/<name>"
        ]
        assert len(routes) > 10
        for number, (path, method) in enumerate(routes):
            headers = as_user(f"user{number}")
            address = {"REMOTE_ADDR": f"192.0.2.{number}"}
            codes = [
                client.open(path, method=method, headers=headers, environ_base=address).status_code
                for _ in range(3)
            ]
            assert codes[2] == 429, (method, path)
            assert 429 not in codes[:2], (method, path)

    def test_who_looks_after_his_runs_can_still_call(
        self, api: Api, as_user: Callable[..., Any]
    ) -> None:
        client = api(CALLBOARD_RATE_LIMIT="1/minute")
        run_id = client.post("/api/actions/work", headers=as_user()).headers["Run-Id"]
        path = f"/api/runs/{run_id}"
        assert [client.get(path, headers=as_user()).status_code for _ in range(2)] == [200, 429]
        refused = client.get(path, headers=as_user()).get_json()
        assert refused["error"] == "Too many requests: 1 per 1 minute are allowed. Slow down."
        assert client.post("/api/actions/work", headers=as_user("bob")).status_code == 202

    @pytest.mark.parametrize(
        ("one", "other", "same"),
        [
            ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", True),
            ("2001:db8::1", "2001:db8:0:1::1", False),
            ("::ffff:192.0.2.1", "192.0.2.1", True),
            ("192.0.2.1", "192.0.2.2", False),
            ("unix:", "", False),
        ],
    )
    def test_an_address_is_what_one_client_has(self, one: str, other: str, same: bool) -> None:
        assert (network(one) == network(other)) is same

    def test_nobody_is_taken_for_another_by_a_header_of_his_own(self, api: Api) -> None:
        client = api(CALLBOARD_RATE_LIMIT="1/minute")

        def call(address: str) -> int:
            headers = {"X-Forwarded-For": address, "Prefer": "respond-async"}
            return client.post("/api/actions/open", headers=headers).status_code

        assert [call("192.0.2.1"), call("192.0.2.2")] == [202, 429]

    def test_without_the_broker_it_is_503_soon(self, api: Api, as_user: Callable[..., Any]) -> None:
        away = f"redis://127.0.0.1:{free_port()}/0"
        client = api(CALLBOARD_RATE_LIMIT="1/minute", REDIS_URL=away)
        begun = time.monotonic()
        assert client.post("/api/actions/work", headers=as_user()).status_code == 503
        assert time.monotonic() - begun < 6


class TestCors:
    @pytest.fixture
    def client(self, api: Api) -> FlaskClient:
        return api(CALLBOARD_CORS_ORIGINS=f"{APP},http://localhost:3000")

    def preflight(
        self, client: FlaskClient, origin: str, asked: str = "authorization,content-type,prefer"
    ) -> Any:
        headers = {
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": asked,
        }
        return client.options("/api/actions/work", headers=headers)

    def test_a_preflight_is_answered_for_exact_origins_only(self, client: FlaskClient) -> None:
        right = self.preflight(client, APP)
        assert right.status_code == 204
        assert right.headers["Access-Control-Allow-Origin"] == APP
        assert "POST" in right.headers["Access-Control-Allow-Methods"]
        allowed = right.headers["Access-Control-Allow-Headers"].lower()
        for name in ("authorization", "content-type", "idempotency-key", "prefer"):
            assert name in allowed
        assert "Access-Control-Allow-Credentials" not in right.headers
        for wrong in (f"{APP}.evil.test", "https://evil.test", "null", f"{APP}:8443", APP.upper()):
            refused = self.preflight(client, wrong)
            assert not [name for name, _ in refused.headers if name.startswith("Access-Control")]
            assert refused.headers["Vary"] == "Origin"

    @pytest.mark.parametrize(
        "asked",
        [
            "authorization,traceparent,tracestate,baggage",
            "sentry-trace, baggage",
            "last-event-id,cache-control",
            "idempotency-key,prefer",
            "x-datadog-trace-id,x-datadog-parent-id,b3,newrelic",
        ],
    )
    def test_a_page_whose_requests_are_instrumented_may_send_them(
        self, client: FlaskClient, asked: str
    ) -> None:
        allowed = self.preflight(client, APP, asked).headers["Access-Control-Allow-Headers"]
        names = {name.strip().lower() for name in allowed.split(",")}
        assert {name.strip() for name in asked.split(",")} <= names

    @pytest.mark.parametrize("asked", ["a\xe9", "a" * 8000, "a:b", "a;b", '"'])
    def test_what_is_no_list_of_headers_is_not_repeated(
        self, client: FlaskClient, asked: str
    ) -> None:
        allowed = self.preflight(client, APP, asked).headers["Access-Control-Allow-Headers"]
        assert asked not in allowed
        assert "Authorization" in allowed

    @pytest.mark.parametrize(
        "origin",
        ["capacitor://localhost", "tauri://localhost", "chrome-extension://abcdefghijklmnop",
         "http://[::1]:3000", "ionic://localhost", "https://a_b.example.com:8443"],
    )  # fmt: skip
    def test_origins_of_apps_that_are_no_website_are_taken(self, api: Api, origin: str) -> None:
        client = api(CALLBOARD_CORS_ORIGINS=f"{APP},{origin}")
        assert self.preflight(client, origin).headers["Access-Control-Allow-Origin"] == origin

    @pytest.mark.parametrize(
        "origin",
        ["null", "*", "https://*.example.com", "https://a.test/", "https://a.test/x", "a.test",
         "HTTPS://a.test", "https://u@a.test", "file://", "https://a.test:123456", "https://é.test"],
    )  # fmt: skip
    def test_what_no_browser_sends_as_an_origin_is_refused(self, api: Api, origin: str) -> None:
        with pytest.raises(ValidationError, match="is not an origin"):
            api(CALLBOARD_CORS_ORIGINS=origin)

    def test_every_response_tells_what_a_page_may_read(
        self, client: FlaskClient, as_user: Callable[..., Any]
    ) -> None:
        answers = [
            client.post("/api/actions/work", headers=as_user(Origin=APP)),
            client.post("/api/actions/work", headers={"Origin": APP}),
            client.get("/api/nothing", headers={"Origin": APP}),
        ]
        assert [answer.status_code for answer in answers] == [202, 401, 404]
        for answer in answers:
            assert answer.headers["Access-Control-Allow-Origin"] == APP
            assert answer.headers["Access-Control-Expose-Headers"] == (
                "Run-Id, Location, Retry-After, Idempotent-Replayed, Preference-Applied, "
                "WWW-Authenticate, Allow"
            )

    def test_it_is_off_unless_set(self, api: Api) -> None:
        refused = self.preflight(api(), APP)
        assert "Access-Control-Allow-Origin" not in refused.headers
        assert "Vary" not in refused.headers


class TestFences:
    @pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
    @pytest.mark.parametrize(
        "path",
        ["/api/actions/work", "/api/runs", "/api/runs/x", "/api/runs/x/events", "/api/schedules",
         "/api/openapi.json", "/healthz", "/readyz", "/metrics", "/api/nothing", "/api//runs"],
    )  # fmt: skip
    def test_no_answer_is_kept_or_taken_for_something_else(
        self, api: Api, as_user: Callable[..., Any], path: str, method: str
    ) -> None:
        client = api(CALLBOARD_ENV="development", CALLBOARD_CORS_ORIGINS=APP)
        for headers in ({}, as_user(), as_user("owner"), {"Origin": APP}):
            preflight = {"Access-Control-Request-Method": "POST"} if method == "OPTIONS" else {}
            answer = client.open(path, method=method, headers={**headers, **preflight})
            assert answer.headers.getlist("Cache-Control") == ["no-store"]
            assert answer.headers.getlist("X-Content-Type-Options") == ["nosniff"]

    @pytest.mark.parametrize("path", ["/", "/console/console.js", "/docs", "/docs/static/docs.js"])
    def test_pages_are_asked_for_again_each_time(self, api: Api, path: str) -> None:
        with api(CALLBOARD_ENV="development").get(path) as answer:
            assert answer.status_code == 200
            assert answer.headers.getlist("Cache-Control") == ["no-cache"]
            assert answer.headers.getlist("X-Content-Type-Options") == ["nosniff"]


class TestPrefix:
    """Behind a proxy that shows the API under a path."""

    PREFIX = "/tools/callboard"

    @pytest.fixture(params=["proxy", "server"])
    def client(
        self, request: pytest.FixtureRequest, api: Api, monkeypatch: pytest.MonkeyPatch
    ) -> FlaskClient:
        """Whose requests come under the prefix: from a trusted proxy, or from the server."""
        client = api(CALLBOARD_ENV="development", CALLBOARD_TRUSTED_PROXIES="1")
        name = {"proxy": "HTTP_X_FORWARDED_PREFIX", "server": "SCRIPT_NAME"}[request.param]
        inside = client.application.wsgi_app

        def outside(environ: Any, start_response: Any) -> Any:
            return inside({**environ, name: self.PREFIX}, start_response)

        monkeypatch.setattr(client.application, "wsgi_app", outside)
        return client

    def test_it_is_in_the_location_of_a_run(
        self, client: FlaskClient, as_user: Callable[..., Any]
    ) -> None:
        accepted = client.post("/api/actions/work", headers=as_user())
        waiting = client.post("/api/actions/work", headers=as_user(Prefer="wait=0"))
        assert (accepted.status_code, waiting.status_code) == (202, 504)
        for answer in (accepted, waiting):
            run_id = answer.headers["Run-Id"]
            assert answer.headers["Location"] == f"{self.PREFIX}/api/runs/{run_id}"
        assert waiting.get_json()["error"].endswith(waiting.headers["Location"])

    def test_it_is_in_the_document_and_the_pages(self, client: FlaskClient) -> None:
        document = client.get("/api/openapi.json").get_json()
        assert document["servers"] == [{"url": self.PREFIX}]
        for page in ("/", "/docs"):
            text = client.get(page).get_data(as_text=True)
            links = re.findall(r'(?:href|src|data-[a-z]+)="(/[^"]*)"', text)
            assert links
            assert all(link.startswith(self.PREFIX) for link in links)

    def test_redirects_stay_under_it(self, client: FlaskClient) -> None:
        answer = client.get("/api//runs")
        if answer.status_code in (301, 302, 307, 308):
            assert urlsplit(answer.headers["Location"]).path == f"{self.PREFIX}/api/runs"

    def test_without_it_the_document_is_at_the_root(self, api: Api) -> None:
        document = api(CALLBOARD_OPENAPI="true").get("/api/openapi.json").get_json()
        assert document["servers"] == [{"url": "/"}]

    @pytest.mark.parametrize(
        "prefix",
        ["//evil.test", "https://evil.test", "/\\evil.test", "/a//b", "/../x", "/x/..", "/%2f",
         '/"><script>', "/a b", "x", "/" + "a" * 300, "/a\n"],
    )  # fmt: skip
    def test_one_that_leads_elsewhere_is_left_out(
        self, api: Api, as_user: Callable[..., Any], prefix: str
    ) -> None:
        client = api(CALLBOARD_TRUSTED_PROXIES="1")
        environ = {"HTTP_X_FORWARDED_PREFIX": prefix}
        answer = client.post("/api/actions/work", headers=as_user(), environ_overrides=environ)
        assert answer.headers["Location"] == f"/api/runs/{answer.headers['Run-Id']}"

    def test_nobody_else_sets_it(self, api: Api, as_user: Callable[..., Any]) -> None:
        headers = as_user(**{"X-Forwarded-Prefix": "/theirs"})
        answer = api().post("/api/actions/work", headers=headers)
        assert answer.headers["Location"] == f"/api/runs/{answer.headers['Run-Id']}"


class TestMetricsSetting:
    @pytest.mark.parametrize(
        ("settings", "status"),
        [
            ({}, 404),
            ({"CALLBOARD_METRICS": "true"}, 200),
            ({"CALLBOARD_ENV": "development"}, 200),
            ({"CALLBOARD_ENV": "development", "CALLBOARD_METRICS": "false"}, 404),
        ],
    )
    def test_it_is_on_in_development_and_otherwise_as_set(
        self, api: Api, settings: dict[str, str], status: int
    ) -> None:
        assert api(**settings).get("/metrics").status_code == status


class TestCodes:
    def test_a_call_that_no_run_comes_of_tells_why(
        self, api: Api, as_user: Callable[..., Any]
    ) -> None:
        client = api(CALLBOARD_MAX_QUEUE="1")

        def told(name: str = "work", body: str = "{}", **headers: str) -> tuple[int, str]:
            given = as_user(**{"Content-Type": "application/json", **headers})
            response = client.post(f"/api/actions/{name}", data=body, headers=given)
            return response.status_code, response.get_json().get("code")

        assert told(**{"Idempotency-Key": "k"}) == (202, None)
        assert told(**{"Idempotency-Key": "k"}, body='{"a": 1}') == (422, "key_reused")
        assert told() == (503, "queue_full")
        assert told("strict") == (422, "invalid_params")
        assert told("nope") == (404, "unknown_action")

    def test_a_run_that_goes_on_or_is_canceled_has_one(
        self, api: Api, as_user: Callable[..., Any]
    ) -> None:
        client = api()
        waiting = client.post("/api/actions/work", headers=as_user(Prefer="wait=0"))
        assert (waiting.status_code, waiting.get_json()["code"]) == (504, "wait_over")
        run = f"/api/runs/{waiting.headers['Run-Id']}"
        retried = client.post(f"{run}/retry", headers=as_user("owner"))
        assert (retried.status_code, retried.get_json()["code"]) == (409, "conflict")
        canceled = client.post(f"{run}/cancel", headers=as_user())
        assert canceled.get_json()["data"]["result"]["code"] == "canceled"
        assert client.get(run, headers=as_user("bob")).get_json()["code"] == "not_found"
        refused = client.post(f"{run}/retry", headers=as_user())
        assert (refused.status_code, refused.get_json()["code"]) == (403, "forbidden")
