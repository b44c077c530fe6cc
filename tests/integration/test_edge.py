"""The edge of the API: rate limit, cross-origin requests, and what is served in production."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import redis
from flask.testing import FlaskClient

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
        until = time.monotonic() + 10
        response = client.post("/api/actions/work", headers=as_user())
        while response.status_code == 202:
            assert time.monotonic() < until
            response = client.post("/api/actions/work", headers=as_user())
        told = int(response.headers["Retry-After"])
        begun = time.monotonic()
        eventually(
            lambda: client.post("/api/actions/work", headers=as_user()).status_code == 202,
            within=told + 1,
        )
        assert time.monotonic() - begun <= told + 1

    def test_callers_without_a_token_are_known_by_their_address(self, api: Api) -> None:
        client = api(CALLBOARD_RATE_LIMIT="1/minute", CALLBOARD_TRUSTED_PROXIES="1")

        def call(address: str) -> int:
            headers = {"X-Forwarded-For": address, "Prefer": "respond-async"}
            return client.post("/api/actions/open", headers=headers).status_code

        assert [call("192.0.2.1"), call("192.0.2.1"), call("192.0.2.2")] == [202, 429, 202]

    def test_without_the_broker_it_is_503_soon(self, api: Api, as_user: Callable[..., Any]) -> None:
        away = f"redis://127.0.0.1:{free_port()}/0"
        client = api(CALLBOARD_RATE_LIMIT="1/minute", REDIS_URL=away)
        begun = time.monotonic()
        assert client.post("/api/actions/work", headers=as_user()).status_code == 503
        assert time.monotonic() - begun < 2


class TestCors:
    @pytest.fixture
    def client(self, api: Api) -> FlaskClient:
        return api(CALLBOARD_CORS_ORIGINS=f"{APP},http://localhost:3000")

    def preflight(self, client: FlaskClient, origin: str) -> Any:
        headers = {
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type,prefer",
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
                "Run-Id, Location, Retry-After, Idempotent-Replayed, Preference-Applied"
            )

    def test_it_is_off_unless_set(self, api: Api) -> None:
        refused = self.preflight(api(), APP)
        assert "Access-Control-Allow-Origin" not in refused.headers
        assert "Vary" not in refused.headers


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
