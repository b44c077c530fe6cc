"""Calls over HTTP against the real processes: each status of the contract."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from local_stack import Stack

JSON = {"Content-Type": "application/json"}

Eventually = Callable[..., None]


def post(stack: Stack, action: str, **options: Any) -> httpx.Response:
    """A POST as given, with alice's token unless it says otherwise."""
    headers = {"Authorization": f"Bearer {stack.token('alice')}", **options.pop("headers", {})}
    bare = {name: value for name, value in headers.items() if value}
    return httpx.post(f"{stack.url}/api/actions/{action}", headers=bare, timeout=60, **options)


def test_a_handler_sees_its_caller_and_its_params(app_stack: Stack) -> None:
    response = app_stack.call("echo", {"a": [1, {"ü": None}]})
    data = response.json()["data"]
    assert response.status_code == 200
    assert data["params"] == {"a": [1, {"ü": None}]}
    assert (data["userId"], data["attempt"], data["hasToken"]) == ("alice", 1, True)
    assert data["runId"] == response.headers["Run-Id"]


def test_a_failure_of_the_handler_is_an_answer(app_stack: Stack) -> None:
    response = app_stack.call("refuse")
    assert response.status_code == 200
    assert response.json() == {"success": False, "error": "Event not found", "code": "failed"}


def test_no_secret_is_in_the_handlers_environment(app_stack: Stack) -> None:
    names = app_stack.call("environment").json()["data"]
    assert "OWNER_USER_ID" in names
    assert not {"SECRET_KEY", "JWT_SECRET", "REDIS_URL", "MONGODB_URI", "APP_OWNER_JWT"} & set(
        names
    )


def test_an_empty_body_is_an_empty_object(app_stack: Stack) -> None:
    assert post(app_stack, "echo").json()["data"]["params"] == {}
    chunked = post(app_stack, "echo", content=iter([b'{"a"', b":1}"]), headers=JSON)
    assert chunked.json()["data"]["params"] == {"a": 1}


def test_a_call_that_is_due_later_runs_then(app_stack: Stack) -> None:
    asked = time.time()
    headers = {"Run-Delay": "1.5", "Idempotency-Key": "later"}
    accepted = app_stack.call("echo", {"n": 1}, **headers)
    assert (accepted.status_code, accepted.json()["data"]["status"]) == (202, "waiting")
    run = app_stack.run(accepted.headers["Run-Id"])
    assert run["result"]["data"]["params"] == {"n": 1}
    assert time.time() - asked >= 1.5
    again = app_stack.call("echo", {"n": 1}, **headers)
    assert (again.status_code, again.json()) == (200, run["result"])


class TestOrderOfChecks:
    """404 path / 405, 401, 404 action, 403, 413, 415, 400, 422."""

    def test_404_for_a_path_and_405_for_a_method(self, app_stack: Stack) -> None:
        assert httpx.get(f"{app_stack.url}/api/nothing", timeout=60).status_code == 404
        refused = httpx.get(f"{app_stack.url}/api/actions/echo", timeout=60)
        assert (refused.status_code, refused.json()["success"]) == (405, False)
        assert "POST" in refused.headers["Allow"]

    def test_401_before_404(self, app_stack: Stack) -> None:
        response = app_stack.call("nothing", as_user=None)
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"] == "Bearer"
        assert response.json() == {
            "success": False,
            "error": "Unauthorized",
            "code": "unauthorized",
        }

    def test_404_names_the_nearest(self, app_stack: Stack) -> None:
        response = app_stack.call("eco")
        assert response.status_code == 404
        assert response.json()["error"] == "Unknown action 'eco'. Did you mean 'echo'?"

    def test_403_for_everyone_but_the_owner(self, app_stack: Stack) -> None:
        refused = app_stack.call("forTheOwner")
        assert (refused.status_code, refused.json()["error"]) == (403, "Forbidden: owner only")
        assert "Run-Id" not in refused.headers
        assert app_stack.call("forTheOwner", as_user="owner").status_code == 200

    def test_403_before_413(self, app_stack: Stack) -> None:
        large = b"x" * (1024 * 1024 + 1)
        assert post(app_stack, "forTheOwner", content=large).status_code == 403
        assert post(app_stack, "echo", content=large).status_code == 413
        assert post(app_stack, "echo", content=iter([large]), headers=JSON).status_code == 413

    def test_415_before_400(self, app_stack: Stack) -> None:
        for kind in ("text/plain", ""):
            response = post(app_stack, "echo", content=b"nonsense", headers={"Content-Type": kind})
            assert response.status_code == 415

    @pytest.mark.parametrize(
        "body",
        [
            b"nonsense",
            b"[]",
            b"null",
            b'{"a": NaN}',
            b'{"a": Infinity}',
            b"\xff\xfe",
            b"[" * 100_000,
            b'{"a":' * 950 + b"1" + b"}" * 950,
        ],
    )
    def test_400_for_what_is_no_json_object(self, app_stack: Stack, body: bytes) -> None:
        assert post(app_stack, "login", content=body, headers=JSON).status_code == 400

    @pytest.mark.parametrize(
        ("body", "told"),
        [
            (b'{"a": [1e400]}', "a.0: 1e400 is beyond a 64-bit float"),
            (b'{"a": {"b": "\\ud800"}}', "a.b: half of a surrogate pair is no text"),
            (b'{"a": {"\\ud800": 1}}', "a.\\ud800: half of a surrogate pair is no text"),
            (b'{"a": NaN}', "a: NaN is not JSON"),
        ],
    )
    def test_400_names_where_it_is_no_json(self, app_stack: Stack, body: bytes, told: str) -> None:
        response = post(app_stack, "echo", content=body, headers=JSON)
        assert response.status_code == 400
        assert response.json()["error"] == f"The body is not JSON: {told}"

    def test_what_is_accepted_comes_back_as_it_was_sent(self, app_stack: Stack) -> None:
        nest: Any = 10**30
        for _ in range(60):
            nest = [nest]
        body = {"x": 0.1, "\N{GRINNING FACE}": ["\u2028", -(2**63) - 1], "nest": nest}
        assert app_stack.call("echo", body).json()["data"]["params"] == body
        assert app_stack.call("echo", {"a": [[[nest]]]}).status_code == 500  # a result of 66 levels
        assert app_stack.call("echo", {"a": [[[[nest]]]]}).status_code == 400

    def test_400_for_a_bad_header_before_422(self, app_stack: Stack) -> None:
        for header in ({"Prefer": "wait=soon"}, {"Idempotency-Key": "k" * 256}):
            assert post(app_stack, "login", json={}, headers=header).status_code == 400

    def test_422_names_each_field_and_no_value(self, app_stack: Stack) -> None:
        response = app_stack.call("login", {"user": 7, "password": ["canary-secret"]})
        assert response.status_code == 422
        assert [issue["path"] for issue in response.json()["issues"]] == ["user", "password"]
        assert "canary" not in response.text


class TestTokens:
    def test_anonymous_actions_need_none_but_refuse_a_bad_one(self, app_stack: Stack) -> None:
        assert app_stack.call("echo", as_user=None).json()["data"]["userId"] is None
        bad = post(app_stack, "echo", headers={"Authorization": "Bearer nonsense"})
        assert bad.status_code == 401
        assert bad.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'

    @pytest.mark.parametrize(
        "claims",
        [
            {"exp": 1},
            {"sub": 7},
            {"sub": ""},
            {"sub": "x" * 256},
            {"nbf": 2**40},
            {"iat": 2**40},
        ],
    )
    def test_claims_that_do_not_hold_are_refused(
        self, app_stack: Stack, claims: dict[str, Any]
    ) -> None:
        secret = app_stack.announced["environment"]["JWT_SECRET"]
        token = jwt.encode({"sub": "alice", "exp": time.time() + 60, **claims}, secret)
        response = post(app_stack, "refuse", headers={"Authorization": f"Bearer {token}"})
        assert response.status_code == 401

    def test_another_key_is_refused(self, app_stack: Stack) -> None:
        token = jwt.encode({"sub": "alice", "exp": time.time() + 60}, "x" * 40)
        response = post(app_stack, "refuse", headers={"Authorization": f"Bearer {token}"})
        assert response.status_code == 401


class TestWaiting:
    def test_504_when_the_wait_runs_out_and_the_run_goes_on(self, app_stack: Stack) -> None:
        response = app_stack.call("slow", {"seconds": 2}, Prefer="wait=0")
        run_id = response.json()["runId"]
        assert response.status_code == 504
        assert response.headers["Location"] == f"/api/runs/{run_id}"
        assert response.headers["Run-Id"] == run_id
        assert int(response.headers["Retry-After"]) > 0
        run = show(app_stack, run_id, wait=60)
        assert (run["status"], run["result"]["success"]) == ("succeeded", True)

    def test_202_at_once_or_after_the_wait(self, app_stack: Stack) -> None:
        response = app_stack.call("slow", {"seconds": 1}, Prefer="respond-async")
        assert response.status_code == 202
        assert response.headers["Preference-Applied"] == "respond-async"
        assert response.json()["data"]["status"] in ("queued", "running")
        assert show(app_stack, response.headers["Run-Id"], wait=60)["status"] == "succeeded"
        assert app_stack.call("echo", Prefer="respond-async, wait=20").status_code == 200

    def test_a_retried_handler_keeps_its_caller_waiting(self, app_stack: Stack) -> None:
        assert app_stack.call("flaky", {"at": 3}).json()["data"] == {"attempt": 3}
        assert app_stack.call("flaky", {"at": 99}).status_code == 500

    def test_a_caller_who_hangs_up_ends_nothing(
        self, app_stack: Stack, eventually: Eventually
    ) -> None:
        before = _count(app_stack)
        address = httpx.URL(app_stack.url)
        with socket.create_connection((address.host, address.port)) as connection:
            head = "POST /api/actions/slow HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n"
            token = app_stack.token("alice")
            connection.sendall(f"{head}Authorization: Bearer {token}\r\n\r\n".encode())
            eventually(lambda: _count(app_stack) > before)


class TestIdempotency:
    def test_the_same_key_is_the_same_run(self, app_stack: Stack) -> None:
        first = app_stack.call("echo", {"n": 1}, **{"Idempotency-Key": "one"})
        again = app_stack.call("echo", {"n": 1}, **{"Idempotency-Key": "one"})
        assert (again.status_code, again.content) == (first.status_code, first.content)
        assert "Idempotent-Replayed" not in first.headers
        assert again.headers["Idempotent-Replayed"] == "true"
        assert again.headers["Run-Id"] == first.headers["Run-Id"]

    def test_it_is_scoped_to_caller_and_action(self, app_stack: Stack) -> None:
        mine = app_stack.call("echo", **{"Idempotency-Key": "two"})
        theirs = app_stack.call("echo", as_user="bob", **{"Idempotency-Key": "two"})
        other = app_stack.call("refuse", **{"Idempotency-Key": "two"})
        assert len({r.headers["Run-Id"] for r in (mine, theirs, other)}) == 3

    def test_another_body_is_refused_and_no_caller_too(self, app_stack: Stack) -> None:
        app_stack.call("echo", {"n": 1}, **{"Idempotency-Key": "three"})
        assert app_stack.call("echo", {"n": 2}, **{"Idempotency-Key": "three"}).status_code == 422
        anonymous = app_stack.call("echo", as_user=None, **{"Idempotency-Key": "three"})
        assert anonymous.status_code == 400

    def test_twenty_at_once_and_one_later_are_one_run(self, app_stack: Stack) -> None:
        key = {"Idempotency-Key": "four"}
        before = _count(app_stack)
        with ThreadPoolExecutor(20) as pool:
            calls = [pool.submit(app_stack.call, "slow", {"seconds": 1}, **key) for _ in range(20)]
            responses = [call.result() for call in calls]
        responses.append(app_stack.call("slow", {"seconds": 1}, **key))
        assert {response.status_code for response in responses} == {200}
        assert len({response.headers["Run-Id"] for response in responses}) == 1
        assert len({response.content for response in responses}) == 1
        assert _count(app_stack) == before + 1


class TestRuns:
    def test_a_run_is_its_callers_and_the_owners(self, app_stack: Stack) -> None:
        run_id = app_stack.call("echo").headers["Run-Id"]
        assert show(app_stack, run_id)["createdBy"] == "alice"
        assert show(app_stack, run_id, as_user="owner")["action"] == "echo"
        for user in ("bob", None):
            assert read(app_stack, run_id, as_user=user).status_code == 404
        assert read(app_stack, "no-such-run").status_code == 404
        anonymous = app_stack.call("echo", as_user=None).headers["Run-Id"]
        assert read(app_stack, anonymous, as_user=None).status_code == 200

    def test_events_tell_status_and_progress_until_the_end(
        self, app_stack: Stack, tmp_path: Path
    ) -> None:
        gates = [tmp_path / "first", tmp_path / "second"]
        params = {"until": [str(gate) for gate in gates]}
        run_id = app_stack.call("stepwise", params, Prefer="wait=0").headers["Run-Id"]
        headers = {"Authorization": f"Bearer {app_stack.token('alice')}"}
        url = f"{app_stack.url}/api/runs/{run_id}/events"
        with httpx.stream("GET", url, headers=headers, timeout=60) as response:
            assert response.headers["Content-Type"].startswith("text/event-stream")
            lines = response.iter_lines()
            next(line for line in lines if "step 0" in line)
            gates[0].touch()
            text = ""
            while "step 1" not in text:
                text += next(lines)
            gates[1].touch()
            *_, last = filter(None, lines)
        assert "event: progress" in text
        assert '"status": "succeeded"' in last

    def test_a_running_run_is_canceled_and_its_caller_told(self, app_stack: Stack) -> None:
        with ThreadPoolExecutor(1) as pool:
            key = {"Idempotency-Key": "cancel-me"}
            waiting = pool.submit(app_stack.call, "slow", {"seconds": 30}, **key)
            run_id = app_stack.call("slow", {"seconds": 30}, **key, Prefer="wait=1").headers[
                "Run-Id"
            ]
            assert cancel(app_stack, run_id, as_user="bob").status_code == 404
            assert cancel(app_stack, run_id).status_code == 200
            blocked = waiting.result()
        assert (blocked.status_code, blocked.json()["error"]) == (409, "Canceled")
        assert show(app_stack, run_id)["status"] == "canceled"
        assert cancel(app_stack, run_id).json()["data"]["status"] == "canceled"


def _count(stack: Stack) -> int:
    """How many runs of `slow` have begun."""
    begun: int = stack.call("count", {"collection": "slow"}).json()["data"]
    return begun


def read(
    stack: Stack, run_id: str, *, as_user: str | None = "alice", wait: int = 0
) -> httpx.Response:
    headers = {"Authorization": f"Bearer {stack.token(as_user)}"} if as_user else {}
    return httpx.get(f"{stack.url}/api/runs/{run_id}?wait={wait}", headers=headers, timeout=90)


def show(stack: Stack, run_id: str, **options: Any) -> dict[str, Any]:
    data: dict[str, Any] = read(stack, run_id, **options).json()["data"]
    return data


def cancel(stack: Stack, run_id: str, *, as_user: str = "alice") -> httpx.Response:
    headers = {"Authorization": f"Bearer {stack.token(as_user)}"}
    return httpx.post(f"{stack.url}/api/runs/{run_id}/cancel", headers=headers, timeout=60)


class TestPackets:
    """A response is one packet, and none waits for a body that it has not."""

    def exchange(self, stack: Stack, head: str) -> bytes:
        """What comes first when this request is sent."""
        address = httpx.URL(stack.url)
        with socket.create_connection((address.host, address.port or 80), timeout=60) as connection:
            connection.sendall(head.replace("\n", "\r\n").encode())
            return connection.recv(65536)

    def test_head_and_body_come_together(self, app_stack: Stack) -> None:
        token = app_stack.token("alice")
        received = self.exchange(
            app_stack,
            f"POST /api/actions/echo HTTP/1.1\nHost: x\nAuthorization: Bearer {token}\n"
            "Content-Length: 0\n\n",
        )
        assert received.startswith(b"HTTP/1.1 200 OK\r\n")
        assert received.endswith(b"}")

    @pytest.mark.parametrize("connection", ["close", "keep-alive"])
    def test_a_head_without_a_body_comes_at_once(self, app_stack: Stack, connection: str) -> None:
        received = self.exchange(
            app_stack, f"HEAD /healthz HTTP/1.1\nHost: x\nConnection: {connection}\n\n"
        )
        assert received.startswith(b"HTTP/1.1 200 OK\r\n")
        assert received.endswith(b"\r\n\r\n")

    def test_a_file_comes_behind_its_head(self, app_stack: Stack) -> None:
        page = httpx.get(f"{app_stack.url}/console/console.js", timeout=60)
        assert (page.status_code, page.headers["Content-Type"][:15]) == (200, "text/javascript")
        assert "import" in page.text

    def test_a_client_that_waits_to_be_told_to_go_on_is_told(self, app_stack: Stack) -> None:
        received = self.exchange(
            app_stack,
            f"POST /api/actions/echo HTTP/1.1\nHost: x\nContent-Length: 2\n"
            f"Authorization: Bearer {app_stack.token('alice')}\nExpect: 100-continue\n\n",
        )
        assert received.startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
