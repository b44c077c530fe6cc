"""`Client` and `callboard call`, against an HTTP server that answers what the test says."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from click.testing import CliRunner

from callboard import Client, fail, ok
from callboard.cli import main
from callboard.errors import NotFound, RunRefused, ServiceUnavailable, Unauthorized
from callboard.stack.ports import free_port


class Upstream:
    """Answers each POST with ``status`` and ``body``, and keeps the requests.

    ``first``: what the first requests get instead: a status, or None to hang up.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.status = 200
        self.first: list[int | None] = []
        self.body = b'{"success": true, "data": {"n": 1}}'
        self.requests: list[tuple[str, dict[str, str], Any]] = []


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent = self.rfile.read(int(self.headers["Content-Length"] or 0))
            body = json.loads(sent or b"null")
            state.requests.append((self.path, dict(self.headers), body))
            status = state.first.pop(0) if state.first else state.status
            if status is None:
                self.close_connection = True
                return
            self.send_response(status)
            self.send_header("Retry-After", "0")
            self.send_header("Run-Id", "run-1")
            self.send_header("Content-Length", str(len(state.body)))
            self.end_headers()
            self.wfile.write(state.body)

        def log_message(self, *_: object) -> None:
            """Nothing: pytest shows what matters."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        state = Upstream(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield state
        server.shutdown()
        thread.join()


def test_a_success_is_a_result(upstream):
    assert Client(upstream.url, "t").call("doIt", {"a": 1}) == ok({"n": 1})
    path, headers, body = upstream.requests[0]
    assert (path, headers["Authorization"], body) == (
        "/api/actions/doIt",
        "Bearer t",
        {"a": 1},
    )


def test_a_refusal_is_a_failure(upstream):
    upstream.status, upstream.body = (
        401,
        b'{"success": false, "error": "Unauthorized", "code": "unauthorized"}',
    )
    result = Client(upstream.url).call("doIt")
    assert result == fail("Unauthorized", "unauthorized")
    assert (result.code, result.status) == ("unauthorized", 401)


def test_the_wait_is_a_preference(upstream):
    Client(upstream.url, "t").call("doIt", wait=3)
    assert upstream.requests[0][1]["Prefer"] == "wait=3"


def test_a_reply_knows_its_run(upstream):
    assert Client(upstream.url, "t").send("doIt", respond_async=True).run_id == "run-1"
    assert upstream.requests[0][1]["Prefer"] == "respond-async"


def test_a_start_is_later(upstream):
    client = Client(upstream.url, "t")
    at = datetime(2030, 1, 31, 9, tzinfo=UTC)
    assert client.start("doIt", {"a": 1}, delay=90, key="k") == "run-1"
    assert client.start("doIt", at=at) == "run-1"
    assert client.start("doIt") == "run-1"
    later, then, now = (headers for _, headers, _ in upstream.requests)
    assert (later["Run-Delay"], later["Idempotency-Key"]) == ("90.000", "k")
    assert then["Run-At"] == "2030-01-31T09:00:00+00:00"
    assert now["Prefer"] == "respond-async"
    assert not {"Run-Delay", "Run-At", "Idempotency-Key"} & now.keys()
    with pytest.raises(ValueError, match="timezone"):
        client.start("doIt", at=datetime(2030, 1, 31))  # noqa: DTZ001 - what is refused


def test_a_batch_is_tried_again_under_the_same_keys(upstream):
    upstream.first, upstream.body = [503], b'{"success": true, "data": [{"runId": "r"}]}'
    calls = [{"action": "doIt"}, {"action": "doIt", "key": "k", "delay": 5}]
    assert Client(upstream.url, "t", retries=1).batch(calls) == [{"runId": "r"}]
    (path, _, first), (_, _, second) = upstream.requests
    assert (path, first) == ("/api/batch", second)
    assert [call["action"] for call in first["calls"]] == ["doIt", "doIt"]
    assert (first["calls"][1]["key"], first["calls"][1]["delay"]) == ("k", 5)
    assert len(first["calls"][0]["key"]) == 36


def test_a_batch_that_is_refused_as_a_whole_raises(upstream):
    upstream.status, upstream.body = (
        400,
        b'{"success": false, "error": "calls: from 1", "code": "bad_request"}',
    )
    with pytest.raises(RunRefused, match="from 1") as caught:
        Client(upstream.url, "t").batch([])
    assert (caught.value.code, caught.value.status) == ("bad_request", 400)
    assert upstream.requests[0][2] == {"calls": []}


@pytest.mark.parametrize(
    ("status", "kind"), [(401, Unauthorized), (404, NotFound), (410, ServiceUnavailable)]
)
def test_an_error_has_the_code_and_the_status_of_the_response(upstream, status, kind):
    upstream.status = status
    upstream.body = b'{"success": false, "error": "No", "code": "its_own"}'
    with pytest.raises(kind) as caught:
        Client(upstream.url).cancel("r")
    assert (caught.value.code, caught.value.status) == ("its_own", status)


@pytest.mark.parametrize("code", [b"", b', "code": null', b', "code": "Not One"'])
def test_a_server_without_codes_has_failed(upstream, code):
    upstream.body = b'{"success": false, "error": "No"' + code + b"}"
    reply = Client(upstream.url).send("doIt")
    assert (reply.code, reply.result) == ("failed", fail("No"))


def test_the_command_starts_it_later(upstream, tmp_path):
    command = ["call", "doIt", "--url", upstream.url, "--token", "t", "--data-dir", str(tmp_path)]
    for given, header in (("--delay=90", "Run-Delay"), ("--at=2030-01-31T09:00Z", "Run-At")):
        assert CliRunner().invoke(main, [*command, given]).exit_code == 0
        assert upstream.requests[-1][1][header] in ("90.000", "2030-01-31T09:00Z")


def test_any_path_can_be_asked(upstream):
    reply = Client(upstream.url, "t").request("POST", "/api/any", json={"a": 1})
    assert (reply.status, reply.envelope["data"]) == (200, {"n": 1})
    path, headers, body = upstream.requests[0]
    assert (path, headers["Authorization"], body) == ("/api/any", "Bearer t", {"a": 1})


def test_something_else_than_callboard_is_told(upstream):
    upstream.status, upstream.body = 502, b"<html>Bad gateway</html>"
    with pytest.raises(ServiceUnavailable, match="answered 502 without an envelope"):
        Client(upstream.url, "t").call("doIt")


def test_nothing_there_is_told():
    with pytest.raises(ServiceUnavailable, match="does not answer"):
        Client(f"http://127.0.0.1:{free_port()}", "t").call("doIt")


def test_a_call_is_tried_again_under_one_key(upstream):
    upstream.first = [503, None, 429]
    assert Client(upstream.url, "t", retries=3).call("doIt") == ok({"n": 1})
    keys = [headers["Idempotency-Key"] for _, headers, _ in upstream.requests]
    assert len(keys) == 4
    assert len(set(keys)) == 1


def test_the_last_try_counts(upstream):
    upstream.status, upstream.body = 503, b'{"success": false, "error": "The queue is full"}'
    assert Client(upstream.url, "t", retries=1).call("doIt") == fail("The queue is full")
    assert len(upstream.requests) == 2


def test_nothing_is_tried_again_unasked(upstream):
    upstream.status, upstream.body = 503, b'{"success": false, "error": "The queue is full"}'
    Client(upstream.url, "t").call("doIt")
    assert len(upstream.requests) == 1
    assert "Idempotency-Key" not in upstream.requests[0][1]


def test_a_failure_is_not_tried_again(upstream):
    upstream.status, upstream.body = 422, b'{"success": false, "error": "Invalid params"}'
    Client(upstream.url, "t", retries=3).call("doIt", idempotency_key="order-1")
    assert [headers["Idempotency-Key"] for _, headers, _ in upstream.requests] == ["order-1"]


def test_retries_need_a_token():
    with pytest.raises(ValueError, match="need a token"):
        Client("http://127.0.0.1", retries=1)


def test_the_command_prints_the_envelope(upstream, tmp_path):
    command = ["call", "doIt", '{"a": 1}', "--url", upstream.url, "--token", "t"]
    done = CliRunner().invoke(main, [*command, "--data-dir", str(tmp_path)])
    assert (done.exit_code, json.loads(done.output)) == (0, {"success": True, "data": {"n": 1}})


def test_the_command_exits_with_1_on_a_failure(upstream, tmp_path):
    upstream.body = b'{"success": false, "error": "No such event"}'
    command = ["call", "doIt", "--url", upstream.url, "--token", "t"]
    done = CliRunner().invoke(main, [*command, "--data-dir", str(tmp_path)])
    assert done.exit_code == 1
    assert json.loads(done.output)["error"] == "No such event"


class TestSignal:
    ANSWER = b'{"success": true, "data": {"accepted": true}}'

    def test_it_sends_any_json_and_without_any_true(self, upstream):
        upstream.body = self.ANSWER
        client = Client(upstream.url, "t")
        assert client.signal("a/b", "approve") is True
        assert client.signal("run-1", "re fuse", {"by": None}) is True
        assert client.signal("run-1", "refuse", None) is True
        sent = [(path, body) for path, _, body in upstream.requests]
        assert sent == [
            ("/api/runs/a%2Fb/signals/approve", True),
            ("/api/runs/run-1/signals/re%20fuse", {"by": None}),
            ("/api/runs/run-1/signals/refuse", None),
        ]

    def test_one_that_came_too_late_is_told(self, upstream):
        upstream.body = self.ANSWER.replace(b"true}}", b"false}}")
        assert Client(upstream.url, "t").signal("run-1", "approve") is False

    def test_it_is_tried_again(self, upstream):
        upstream.first, upstream.body = [503, None], self.ANSWER
        assert Client(upstream.url, "t", retries=2).signal("run-1", "approve") is True

    @pytest.mark.parametrize(
        ("status", "error"),
        [
            (401, Unauthorized),
            (404, NotFound),
            (409, RunRefused),
            (413, RunRefused),
            (503, ServiceUnavailable),
        ],
    )
    def test_a_refusal_is_raised(self, upstream, status, error):
        upstream.status, upstream.body = status, b'{"success": false, "error": "so it is"}'
        with pytest.raises(error):
            Client(upstream.url, "t").signal("run-1", "approve")

    def test_on_the_command_line(self, upstream, tmp_path):
        upstream.body = self.ANSWER
        api = ["--url", upstream.url, "--token", "t", "--data-dir", str(tmp_path)]
        flags = ["runs", *api, "signal", "run-1", "approve"]
        plain = CliRunner().invoke(main, flags)
        assert (plain.exit_code, plain.output) == (0, "run-1 approve: sent\n")
        given = CliRunner().invoke(main, [*flags, '{"by": "bob"}', "--json"])
        assert (given.exit_code, json.loads(given.output)) == (0, {"accepted": True})
        assert [body for *_, body in upstream.requests] == [True, {"by": "bob"}]
        upstream.body = self.ANSWER.replace(b"true}}", b"false}}")
        late = CliRunner().invoke(main, flags)
        assert (late.exit_code, late.output) == (
            0,
            "run-1 approve: nothing has changed: one came before, or it is too late\n",
        )
        wrong = CliRunner().invoke(main, [*flags, "{by"])
        assert (wrong.exit_code, "not JSON" in wrong.output) == (2, True)
        upstream.status, upstream.body = 404, b'{"success": false, "error": "It has ended"}'
        ended = CliRunner().invoke(main, flags)
        assert (ended.exit_code, ended.output) == (1, "callboard: It has ended\n")
