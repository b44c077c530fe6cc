"""Why a run failed: told the owner, by the API and the command line, from the real processes."""

from __future__ import annotations

import json
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


def test_a_plain_handler_that_is_out_of_time_tells_where_it_was(app_stack: Stack) -> None:
    response = app_stack.call("tooSlow")
    [attempt] = detail(app_stack, response.headers["Run-Id"])["attempts"]
    assert attempt["error"] == "Timed out after 1 s"
    assert "time.sleep(30)" in attempt["traceback"]


def test_what_a_handler_says_at_its_level_is_not_the_process_s_log(app_stack: Stack) -> None:
    run_id = app_stack.call("failLoudly").headers["Run-Id"]
    assert detail(app_stack, run_id)["log"]
    assert "at level info" not in app_stack.printed
