"""Handlers that misbehave: their caller gets a failure, the others notice nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import httpx
import pytest
from local_stack import Stack

SOON = 15.0  # seconds: none of these handlers would be over by itself


@pytest.fixture(autouse=True)
def others(app_stack: Stack) -> Iterator[None]:
    """Somebody else calls all the while, and notices nothing."""
    done = threading.Event()
    told: list[tuple[int, float]] = []

    def call() -> None:
        while not done.is_set():
            response = app_stack.call("echo", as_user="somebody-else")
            told.append((response.status_code, response.elapsed.total_seconds()))

    thread = threading.Thread(target=call)
    thread.start()
    yield
    done.set()
    thread.join()
    assert {status for status, _ in told} == {200}
    assert max(seconds for _, seconds in told) < SOON


_RAISES = {"recursion": "_recurse", "hostile": "_hostile", "exception": "_raise"}


@pytest.mark.parametrize(
    "deed",
    ["sys_exit", "recursion", "memory_error", "memory_bomb", "hostile", "keyboard_interrupt",
     "generator_exit", "exception"],
)  # fmt: skip
def test_whatever_is_raised_is_action_failed(app_stack: Stack, deed: str) -> None:
    response = app_stack.call("poison", {"deed": deed})
    assert response.status_code == 500
    body = response.json()
    debug = body.pop("debug")  # as always under `callboard up`
    assert "Traceback" in debug
    assert f"in {_RAISES.get(deed, 'poison')}" in debug
    assert body == {
        "success": False,
        "error": "Action failed",
        "code": "action_failed",
        "runId": response.headers["Run-Id"],
    }


@pytest.mark.parametrize("deed", ["segfault", "exit", "kill"])
def test_a_dead_child_is_no_end_of_the_run(app_stack: Stack, deed: str) -> None:
    response = app_stack.call("poison", {"deed": deed, "once": True})
    assert response.json() == {"success": True, "data": {"attempt": 2}}


def test_three_dead_children_are(app_stack: Stack) -> None:
    response = app_stack.call("poison", {"deed": "segfault"})
    assert (response.status_code, response.json()["error"]) == (500, "Worker lost")


def test_one_is_when_the_action_says_so(app_stack: Stack) -> None:
    response = app_stack.call("poisonWithoutRerun", {"deed": "kill"})
    assert (response.status_code, response.json()["error"]) == (500, "Worker lost")


@pytest.mark.parametrize(
    ("kind", "error", "reason"),
    [
        ("none", "Action failed", "the handler returned nothing; return ok(...) or fail(...)"),
        ("dict", "Action failed", "the handler returned a dict; return ok(...) or fail(...)"),
        ("object", "Action failed", "data.at.0: a object is not JSON; convert it first"),
        ("naive", "Action failed", "data: a datetime without a time zone"),
        ("nan", "Action failed", "data: nan is not JSON; use None"),
        ("tuple_key", "Action failed", "data.(1, 2): a tuple is no key; use a text"),
        ("deep", "Action failed", "nested deeper than 64 levels"),
        ("large", "Result too large", "the result has 67,108,890 bytes as JSON"),
    ],
)
def test_what_is_no_result_is_refused_and_says_why(
    app_stack: Stack, kind: str, error: str, reason: str
) -> None:
    response = app_stack.call("returns", {"kind": kind})
    assert (response.status_code, response.json()["error"]) == (500, error)
    assert reason in response.json()["debug"]
    headers = {"Authorization": f"Bearer {app_stack.token('alice')}"}
    run = httpx.get(
        f"{app_stack.url}/api/runs/{response.headers['Run-Id']}", headers=headers, timeout=60
    )
    assert run.json()["data"]["result"] == response.json()


@pytest.mark.parametrize(("action", "seconds"), [("tooSlow", "1"), ("loops", "2")])
def test_the_timeout_is_hard(app_stack: Stack, action: str, seconds: str) -> None:
    response = app_stack.call(action)
    assert (response.status_code, response.json()["error"]) == (500, f"Timed out after {seconds} s")


def test_the_pool_is_well_afterwards(app_stack: Stack) -> None:
    assert all(app_stack.call("echo").status_code == 200 for _ in range(20))
