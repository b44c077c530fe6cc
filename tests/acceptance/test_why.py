"""Why a run failed: told the owner, by the API and the command line, from the real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import httpx
from local_stack import Stack


def detail(stack: Stack, run_id: str) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {stack.token('owner')}"}
    answer = httpx.get(f"{stack.url}/api/runs/{run_id}/detail", headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    data: dict[str, Any] = answer.json()["data"]
    return data


def test_what_a_handler_said_and_raised(app_stack: Stack) -> None:
    response = app_stack.call("failLoudly")
    assert response.json()["error"] == "Action failed"
    seen = detail(app_stack, response.headers["Run-Id"])
    [attempt] = seen["attempts"]
    assert attempt["error"] == "ValueError: no stock for [redacted]"
    assert "plain.py" in attempt["traceback"]
    assert ":" in attempt["worker"]
    assert [(line["source"], line["text"]) for line in seen["log"]] == [
        ("log", 'about to fail token="[redacted]"'),
        ("library", "at level info"),
        ("stdout", "printed line"),
    ]
    assert [child["action"] for child in seen["children"]["runs"]] == ["started"]
    assert "eyJ" not in json.dumps(seen)


def test_async_runs_beside_each_other_have_their_own_lines(app_stack: Stack) -> None:
    called = [app_stack.call("talkativeAsync", Prefer="respond-async") for _ in range(10)]
    runs = [response.headers["Run-Id"] for response in called]
    for run_id in runs:
        app_stack.run(run_id)
        lines = detail(app_stack, run_id)["log"]
        assert [line["text"] for line in lines] == [run_id] * 5
        assert [line["source"] for line in lines] == ["library"] * 4 + ["stdout"]


def test_a_plain_handler_that_is_out_of_time_tells_where_it_was(app_stack: Stack) -> None:
    response = app_stack.call("tooSlow")
    [attempt] = detail(app_stack, response.headers["Run-Id"])["attempts"]
    assert attempt["error"] == "Timed out after 1 s"
    assert "time.sleep(30)" in attempt["traceback"]


def test_the_workers_log_has_its_own_level_and_no_token(app_stack: Stack) -> None:
    run_id = app_stack.call("failLoudly").headers["Run-Id"]
    assert detail(app_stack, run_id)["log"]
    lines = [line for line in app_stack.printed.splitlines() if line.startswith("worker")]
    told = "\n".join(lines)
    assert "at level info" not in told
    assert "no stock for [redacted]" in told
    assert "eyJ" not in told


def test_the_commands_show_it_and_start_what_is_internal(app_stack: Stack) -> None:
    run_id = app_stack.call("failLoudly").headers["Run-Id"]
    shown = command(app_stack, "show", run_id)
    for part in ("Attempt", "ValueError: no stock for [redacted]", "Traceback of attempt 1"):
        assert part in shown
    assert "printed line" in shown
    found = json.loads(command(app_stack, "errors", "--action", "failLoudly", "--json"))
    assert {row["exception"] for row in found["errors"]} == {"ValueError"}
    assert "failLoudly" in command(app_stack, "errors")
    result = json.loads(command(app_stack, "start", "started", '{"by": "command"}'))
    assert result["data"] == "command"


def command(stack: Stack, *arguments: str) -> str:
    """What `callboard runs` prints."""
    line = [sys.executable, "-m", "callboard.cli", "runs", "--data-dir", str(stack.data_dir)]
    wide = {**os.environ, "COLUMNS": "300"}
    done = subprocess.run(
        [*line, *arguments], capture_output=True, text=True, timeout=120, check=False, env=wide
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
