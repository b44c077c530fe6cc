"""Steps and waits in real processes that die."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import redis
from local_stack import Stack, started

MANY = 1_000


@pytest.mark.parametrize(
    ("die", "times"),
    [
        (None, 1),
        ("before", 1),
        ("after the effect", 2),  # what no system can rule out: hence the key
        ("after the keeping", 1),
        ("after the wait", 1),
    ],
)
def test_a_step_is_done_once_whenever_its_process_dies(
    app_stack: Stack, die: str | None, times: int
) -> None:
    response = app_stack.call("remembers", {"die": die}, prefer="respond-async")
    run = app_stack.run(response.headers["Run-Id"])
    assert run["result"]["data"] == {"charged": "charged", "times": times, "keys": 1}
    assert run["attempts"] == (1 if die is None else 2)


def test_a_handler_that_is_out_of_time_after_it_has_waited_is_told_so(app_stack: Stack) -> None:
    response = app_stack.call("outlasts", {}, prefer="respond-async")
    result = app_stack.run(response.headers["Run-Id"])["result"]
    assert result["error"] == "Timed out after 2 s"


def test_what_waits_outlives_a_restart_of_every_process(
    tmp_path: Path, eventually: Callable[..., None]
) -> None:
    variables = {"CALLBOARD_ACTIONS": "app", "PYTHONPATH": str(Path(__file__).parent)}
    with started(tmp_path, **variables) as stack:
        stack.wait_ready()
        calls = [{"action": "patient", "params": {}} for _ in range(MANY)]
        rows = posted(stack, "/api/batch", {"calls": calls}).json()["data"]
        run_ids = [row["runId"] for row in rows]
        eventually(lambda: parked(stack) == MANY, within=300)
    with started(tmp_path, **variables) as stack:
        stack.wait_ready()
        assert parked(stack) == MANY
        with httpx.Client(base_url=stack.url, timeout=60) as client:
            client.headers["Authorization"] = f"Bearer {stack.token()}"
            for run_id in run_ids:
                answer = client.post(f"/api/runs/{run_id}/signals/go", json={"for": run_id})
                assert answer.json()["data"] == {"accepted": True}
        with stack.database() as database:
            done = {"action": "patient", "status": "succeeded", "attempts": 1}
            eventually(lambda: database["_runs"].count_documents(done) == MANY, within=300)
            assert {row["run"] for row in database["begun"].find()} == set(run_ids)
            assert database["begun"].count_documents({}) == MANY
        assert parked(stack) == 0


def posted(stack: Stack, path: str, body: object) -> httpx.Response:
    headers = {"Authorization": f"Bearer {stack.token()}"}
    return httpx.post(f"{stack.url}{path}", json=body, headers=headers, timeout=60)


def parked(stack: Stack) -> int:
    """How many runs wait."""
    with redis.Redis.from_url(stack.announced["environment"]["REDIS_URL"]) as client:
        return int(client.zcard("callboard:due"))
