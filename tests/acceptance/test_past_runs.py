"""Runs after their end: the history, the list, the command line, and starting one again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import httpx
import redis
from local_stack import ROOT, Stack

Eventually = Callable[..., None]


def get(stack: Stack, path: str, *, as_user: str = "alice", **query: Any) -> Any:
    """The data of a GET."""
    headers = {"Authorization": f"Bearer {stack.token(as_user)}"}
    response = httpx.get(f"{stack.url}{path}", headers=headers, params=query, timeout=60)
    assert response.status_code == 200, response.text
    return response.json()["data"]


def command(
    stack: Stack, *arguments: str, columns: str = "200"
) -> subprocess.CompletedProcess[str]:
    """`callboard runs ...` beside the running stack."""
    return subprocess.run(
        [sys.executable, "-m", "callboard.cli", "runs", "--data-dir", stack.data_dir, *arguments],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": columns},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def in_history(stack: Stack, run_id: str) -> bool:
    with stack.database() as database:
        return database["_runs"].find_one({"_id": run_id}) is not None


def forget(stack: Stack, run_id: str) -> None:
    """Let the record of a run expire now."""
    with redis.Redis.from_url(stack.announced["environment"]["REDIS_URL"]) as client:
        assert client.ttl(f"callboard:run:{run_id}") > 0
        client.delete(f"callboard:run:{run_id}")


def test_a_run_outlives_its_record(app_stack: Stack, eventually: Eventually) -> None:
    run_id = app_stack.call("echo", {"n": 1}).headers["Run-Id"]
    before = get(app_stack, f"/api/runs/{run_id}")
    eventually(lambda: in_history(app_stack, run_id))
    eventually(lambda: _forgotten(app_stack, run_id))
    assert get(app_stack, f"/api/runs/{run_id}") == before
    assert before["result"]["data"]["params"] == {"n": 1}
    rows = get(app_stack, "/api/runs", action="echo", status="succeeded")["runs"]
    assert run_id in [row["runId"] for row in rows]


def _forgotten(stack: Stack, run_id: str) -> bool:
    try:
        forget(stack, run_id)
    except AssertionError:  # written, but not settled yet
        return False
    return True


def test_the_list_is_the_callers_and_the_owners(app_stack: Stack) -> None:
    mine = app_stack.call("refuse", as_user="carol").headers["Run-Id"]
    theirs = app_stack.call("refuse", as_user="dave").headers["Run-Id"]
    assert [row["runId"] for row in get(app_stack, "/api/runs", as_user="carol")["runs"]] == [mine]
    row = get(app_stack, "/api/runs", as_user="dave")["runs"][0]
    assert (row["runId"], row["error"]) == (theirs, "Event not found")
    seen = get(app_stack, "/api/runs", as_user="owner", limit=2)
    assert [row["runId"] for row in seen["runs"]] == [theirs, mine]
    assert seen["after"]


def test_a_lost_run_is_listed_and_starts_again(app_stack: Stack, eventually: Eventually) -> None:
    lost = app_stack.call("poisonWithoutRerun", {"deed": "exit"})
    run_id = lost.headers["Run-Id"]
    assert (lost.status_code, lost.json()["error"]) == (500, "Worker lost")
    app_stack.call("echo")
    listed = command(app_stack, "--lost").stdout
    assert run_id in listed
    assert "echo" not in listed
    again = command(app_stack, "retry", run_id)
    assert (again.returncode, again.stdout) == (0, f"{run_id} poisonWithoutRerun: queued\n")

    def ended_again() -> bool:
        run = get(app_stack, f"/api/runs/{run_id}")
        return (run["status"], run["attempts"]) == ("failed", 2)

    eventually(ended_again)


def test_the_list_fits_a_terminal_and_shows_one_run(app_stack: Stack) -> None:
    run_id = app_stack.call("refuse").headers["Run-Id"]
    lines = command(app_stack, "--action", "refuse", columns="80").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line for line in lines if line.startswith(f"{run_id}  refuse  failed  ")]
    (row, *_) = json.loads(command(app_stack, "--action", "refuse", "--json").stdout)
    assert (row["runId"], row["error"]) == (run_id, "Event not found")
    shown = json.loads(command(app_stack, "show", run_id, "--json").stdout)
    assert (shown["runId"], shown["result"]["error"]) == (run_id, "Event not found")
    assert "Event not found" in command(app_stack, "show", run_id).stdout
    assert command(app_stack, "show", "no/such run").returncode == 1


def test_the_command_tells_what_is_wrong(app_stack: Stack) -> None:
    run_id = app_stack.call("echo").headers["Run-Id"]
    refused = command(app_stack, "retry", run_id)
    assert refused.returncode == 1
    assert "409: A run that is succeeded starts again only after `Worker lost`" in refused.stderr
    assert "400: status: one of queued" in command(app_stack, "--status", "done").stderr
    assert "No runs." in command(app_stack, "--action", "neverCalled").stdout


def test_metrics_tell_of_calls_and_runs(app_stack: Stack, eventually: Eventually) -> None:
    assert app_stack.call("echo").status_code == 200
    metrics = (
        'callboard_calls_total{action="echo",status="200"}',
        'callboard_runs_total{action="echo",status="succeeded"}',
        'callboard_call_seconds_bucket{action="echo",le="+Inf"}',
        'callboard_queue_depth{queue="callboard"}',
    )

    def all_shown() -> bool:
        text = httpx.get(f"{app_stack.url}/metrics", timeout=60).text
        return all(metric in text for metric in metrics)

    eventually(all_shown)


def test_the_edge_is_set_by_the_environment(start: Callable[..., Stack]) -> None:
    origin = "https://app.example.com"
    stack = start(CALLBOARD_RATE_LIMIT="1/minute", CALLBOARD_CORS_ORIGINS=origin)
    stack.wait_ready()
    first = stack.call("ensureUserRow", Origin=origin)
    second = stack.call("ensureUserRow", Origin=origin)
    assert (first.status_code, second.status_code) == (200, 429)
    assert int(second.headers["Retry-After"]) > 0
    assert second.headers["Access-Control-Allow-Origin"] == origin
