"""Integrations and forwarding against a real server that records what it got."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from faces import AsyncFace, LoopThread, PlainFace
from flask import Flask, Response, redirect, request
from local_http import scripted, served

from callboard import ok
from callboard.log.redaction import Redactor
from callboard.log.run_log import RunLog
from callboard.registry import Registry, discover
from callboard.runs.seal import Call
from callboard.runs.store import Claim
from callboard.sdk.action import action
from callboard.settings import Settings
from worker.runs.attempt import Attempt
from worker.runs.outbound import MAX_RESPONSE_BYTES, AsyncOutbound
from worker.services import Services

OWNER, CALLER = "owner-jwt", "caller-jwt"


@action
def any_action(ctx: Any) -> Any:
    return ok()


class CookieResponse(Response):
    """A redirect that sets a cookie."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.headers["Set-Cookie"] = "session=alice; Path=/"


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
            if path in ("within", "circle"):
                return redirect("/landed" if path == "within" else "/circle")
            if path == "slow":
                time.sleep(5)
            if path == "cookie":
                return Response("{}", headers={"Set-Cookie": "session=alice; Path=/"})
            if path == "cookie-and-on":
                return redirect("/landed", Response=CookieResponse)
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
def outbound(face: PlainFace | AsyncFace, build: Any) -> Any:
    """Builds the outgoing side of a run: ``outbound(jwt=..., seconds=...)``."""
    return lambda **options: build(face.outbound, **options)


@pytest.fixture
def build(upstream_url: str) -> Any:
    """Builds the outgoing side of a run by its kind: ``build(Outbound, jwt=...)``."""

    def build(
        kind: Any,
        *,
        jwt: str | None = CALLER,
        seconds: float = 10.0,
        scheduled: bool = False,
        **more: Any,
    ) -> Any:
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
            log=RunLog(Redactor([])),
        )
        settings = Settings(**{name: value for name, value in variables.items() if value})
        return kind(Services(settings, registry), attempt)

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
        assert time.monotonic() - started < 4.5


class TestNothingIsKept:
    @pytest.mark.parametrize("path", ["/cookie", "/cookie-and-on"])
    def test_a_cookie_set_for_one_caller_is_not_sent_for_the_next(
        self, outbound: Any, upstream: Upstream, path: str
    ) -> None:
        outbound(jwt="alice-jwt").fetch("platform", path)
        outbound(jwt="bob-jwt").fetch("platform", "/x")
        outbound(jwt="bob-jwt").integration("google/x")
        assert len(upstream.asked) >= 3
        assert not [asked for asked in upstream.asked if "cookie" in asked["headers"]]

    def test_what_follows_a_response_is_not_the_next_callers(self, outbound: Any) -> None:
        def answer(connection: socket.socket) -> None:
            response = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
            connection.sendall(response + b"right" + response + b"wrong")
            while connection.recv(65536):
                connection.sendall(response + b"right")

        with scripted(answer) as url:
            for jwt in ("alice-jwt", "bob-jwt"):
                run = outbound(jwt=jwt, UPSTREAMS=f"platform={url}")
                assert run.fetch("platform", "/x").text == "right"

    def test_headers_and_credentials_of_one_request_are_not_in_the_next(
        self, outbound: Any, upstream: Upstream
    ) -> None:
        outbound(jwt="alice-jwt").fetch("platform", "/x", headers={"X-Tenant": "alice"})
        outbound(jwt=None).fetch("platform", "/x")
        assert "x-tenant" not in upstream.asked[1]["headers"]
        assert "alice" not in str(upstream.asked[1]["headers"])

    def test_proxies_and_netrc_of_the_environment_are_not_used(
        self,
        outbound: Any,
        upstream: Upstream,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        netrc = tmp_path / "netrc"
        netrc.write_text("default login mallory password secret\n")
        netrc.chmod(0o600)
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:1")
            monkeypatch.setenv(name.lower(), "http://127.0.0.1:1")
        monkeypatch.setenv("NETRC", str(netrc))
        assert outbound(jwt=None).fetch("platform", "/x").status_code == 200
        assert "authorization" not in upstream.asked[0]["headers"]


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
ZEROS = b"0" * (64 * 1024 * 1024)


def dribble(parts: Iterator[bytes]) -> Callable[[socket.socket], None]:
    """Send one part after the other, each soon enough for a timeout of reads."""

    def answer(connection: socket.socket) -> None:
        for part in parts:
            connection.sendall(part)
            threading.Event().wait(0.05)

    return answer


class TestBounds:
    @pytest.mark.parametrize(
        ("encoding", "body"),
        [
            ("gzip", gzip.compress(ZEROS)),
            ("gzip, gzip", gzip.compress(gzip.compress(ZEROS))),
            ("deflate", zlib.compress(ZEROS)),
            ("br", b"\x8b\x00\x80"),
            ("zstd", b"\x28\xb5\x2f\xfd"),
            ("identity, gzip", gzip.compress(ZEROS)),
            ("GZIP", gzip.compress(b"{}")),
        ],
        ids=["gzip", "twice", "deflate", "brotli", "zstd", "listed", "upper-case"],
    )
    def test_an_encoded_body_is_refused_and_never_unpacked(
        self, outbound: Any, encoding: str, body: bytes
    ) -> None:
        head = (
            HEAD + f"Content-Encoding: {encoding}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        )
        with scripted(lambda connection: connection.sendall(head + body)) as url:
            run = outbound(UPSTREAMS=f"platform={url}", INTEGRATIONS_URL=url)
            with pytest.raises(httpx.DecodingError, match="identity was asked for"):
                run.fetch("platform", "/x", headers={"Accept-Encoding": "gzip"})
            assert "DecodingError" in run.integration("openai/x").error

    def test_no_encoding_is_asked_for_whatever_the_handler_says(
        self, outbound: Any, upstream: Upstream
    ) -> None:
        outbound().fetch("platform", "/x", headers={"Accept-Encoding": "gzip, br"})
        assert upstream.asked[0]["headers"]["accept-encoding"] == "identity"

    @pytest.mark.parametrize(
        "parts",
        [
            chain([b"HTTP/1.1 200 OK\r\n"], repeat(b"X: y\r\n")),
            repeat(b"H"),
            chain(iter(HEAD[i : i + 1] for i in range(len(HEAD))), repeat(b"")),
            chain([HEAD + b"Content-Length: 100000\r\n\r\n"], repeat(b"x")),
            chain([HEAD + b"Transfer-Encoding: chunked\r\n\r\n"], repeat(b"1\r\nx\r\n")),
            chain([HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n"], repeat(b"X: y\r\n")),
            chain([HEAD + b"\r\n"], repeat(b"x")),
            repeat(b"HTTP/1.1 100 Continue\r\n\r\n"),
        ],
        ids=["headers", "status", "head", "body", "chunks", "trailers", "until-close", "continue"],
    )
    def test_what_dribbles_in_ends_at_the_deadline(
        self, outbound: Any, parts: Iterator[bytes]
    ) -> None:
        with scripted(dribble(parts)) as url:
            run = outbound(seconds=0.5, UPSTREAMS=f"platform={url}")
            started = time.monotonic()
            with pytest.raises(httpx.RequestError):
                run.fetch("platform", "/x")
        assert time.monotonic() - started < 10

    def test_a_body_without_end_ends_at_the_limit(self, outbound: Any) -> None:
        chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"

        def answer(connection: socket.socket) -> None:
            connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
            while True:
                connection.sendall(chunk)

        refused = pytest.raises(httpx.RequestError, match="larger than 10 MiB")
        with scripted(answer) as url, refused:
            outbound(UPSTREAMS=f"platform={url}").fetch("platform", "/x")

    def test_a_head_is_bounded(self, outbound: Any) -> None:
        head = HEAD + b"X: " + b"y" * 2_000_000
        refused = pytest.raises(httpx.RemoteProtocolError)
        with scripted(lambda connection: connection.sendall(head)) as url, refused:
            outbound(UPSTREAMS=f"platform={url}").fetch("platform", "/x")

    def test_an_upstream_that_takes_nothing_ends_the_request_at_the_deadline(
        self, outbound: Any
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as deaf:
            url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
            started = time.monotonic()
            with pytest.raises(httpx.TimeoutException):
                outbound(seconds=0.5, UPSTREAMS=f"platform={url}").fetch(
                    "platform", "/x", method="POST", content=b"x" * 30_000_000
                )
        assert time.monotonic() - started < 10

    def test_a_charset_unpacks_nothing(self, outbound: Any) -> None:
        body = zlib.compress(ZEROS)
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=zlib\r\n"
        head += f"Content-Length: {len(body)}\r\n\r\n".encode()
        with scripted(lambda connection: connection.sendall(head + body)) as url:
            response = outbound(UPSTREAMS=f"platform={url}").fetch("platform", "/x")
        assert len(response.text) <= len(body)

    def test_a_name_that_does_not_resolve_is_told(self, outbound: Any) -> None:
        with pytest.raises(httpx.ConnectError):
            outbound(seconds=3, UPSTREAMS="platform=https://nowhere.invalid").fetch(
                "platform", "/x"
            )


class TestOnAnEventLoop:
    @pytest.fixture
    def asynchronous(self, loop_thread: LoopThread, build: Any) -> Any:
        """Builds what an async handler gets; to be awaited on ``loop_thread``."""
        return lambda **options: build(AsyncOutbound, **options)

    def test_a_slow_upstream_is_asked_300_times_at_once(
        self, asynchronous: Any, loop_thread: LoopThread
    ) -> None:
        """Each has a connection of its own, and none waits for another."""
        together = threading.Barrier(300)

        def answer(connection: socket.socket) -> None:
            together.wait(30)
            connection.sendall(HEAD + b"Content-Length: 2\r\n\r\n{}")

        with scripted(answer) as url:
            run = asynchronous(UPSTREAMS=f"platform={url}", seconds=60)

            async def fetch_all() -> list[httpx.Response]:
                return await asyncio.gather(*(run.fetch("platform", "/x") for _ in range(300)))

            assert [response.text for response in loop_thread.run(fetch_all())] == ["{}"] * 300

    def test_a_request_of_a_canceled_task_leaves_no_connection(
        self, asynchronous: Any, loop_thread: LoopThread
    ) -> None:
        asked, closed = threading.Event(), threading.Event()

        def answer(connection: socket.socket) -> None:
            asked.set()
            if connection.recv(1) == b"":
                closed.set()

        async def canceled(run: Any) -> None:
            task = asyncio.create_task(run.fetch("platform", "/x"))
            await asyncio.to_thread(asked.wait, 30)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        with scripted(answer) as url:
            loop_thread.run(canceled(asynchronous(UPSTREAMS=f"platform={url}", seconds=60)))
            assert closed.wait(30)


@pytest.mark.parametrize("url", ["http://upstream.test", "ftp://x", "https://u:p@x", "x"])
def test_an_upstream_is_https_outside_loopback(url: str, outbound: Any) -> None:
    with pytest.raises(ValueError, match="UPSTREAMS"):
        outbound(UPSTREAMS=f"platform={url}")


@pytest.mark.parametrize(
    ("status", "answered"),
    [
        (200, {"success": True, "data": ["mine"]}),
        (403, {"success": False, "error": "Upstream 403", "code": "failed"}),
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
