"""The logs of the real processes, as production has them: JSON, line by line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from local_stack import ROOT

from callboard.stack.ports import free_port
from callboard.stack.tokens import mint_token

HERE = Path(__file__).parent
JWT_SECRET = "test-secret-of-more-than-thirty-two-bytes"
COMMANDS = {
    "web": ["gunicorn", "api:create_app()"],
    "worker": ["celery", "-A", "worker", "worker", "--concurrency", "1"],
    "beat": ["celery", "-A", "worker", "beat", "--loglevel", "INFO"],
    "flower": ["celery", "-A", "worker", "flower"],
}


@dataclass(frozen=True)
class Call:
    action: str
    params: dict[str, Any]
    status: int
    run_id: str
    body: dict[str, Any]


@dataclass(frozen=True)
class Logged:
    """What the processes wrote while these calls were made; they have ended."""

    text: dict[str, str]  # by process
    printed: dict[str, str]  # by process: what was on standard output
    soon: str  # what the worker wrote before it was asked to stop
    calls: list[Call]
    token: str

    def lines(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line, parse_constant=_refuse) for line in self.text[name].splitlines()]

    def about(self, action: str) -> list[dict[str, Any]]:
        """What the worker wrote about the run of an action."""
        [run_id] = [call.run_id for call in self.calls if call.action == action]
        return [line for line in self.lines("worker") if run_id in json.dumps(line)]


@pytest.fixture(scope="module")
def logged(
    valkey_server: Any,
    mongodb_server: Any,
    tmp_path_factory: pytest.TempPathFactory,
    eventually: Callable[..., None],
) -> Logged:
    folder = tmp_path_factory.mktemp("logs")
    ports = {"web": free_port(), "flower": free_port()}
    flags = {
        "web": ["--bind", f"127.0.0.1:{ports['web']}"],
        "flower": [f"--port={ports['flower']}"],
    }
    environment = {
        **{name: value for name, value in os.environ.items() if name != "CALLBOARD_ENV"},
        "REDIS_URL": valkey_server.url.removesuffix("/0") + "/1",  # other tests want 0 empty
        "MONGODB_URI": mongodb_server.database_uri("test_logs"),
        "SECRET_KEY": "k" * 40,
        "JWT_SECRET": JWT_SECRET,
        "OWNER_USER_ID": "owner",
        "CALLBOARD_ACTIONS": "app",
        "PYTHONPATH": str(HERE),
    }
    url = f"http://127.0.0.1:{ports['web']}"
    token = mint_token("alice", JWT_SECRET)
    with ExitStack() as stack:
        processes = []
        for name, command in COMMANDS.items():
            output = stack.enter_context((folder / f"{name}.out").open("w"))
            file = stack.enter_context((folder / name).open("w"))
            arguments = [sys.executable, "-m", *command, *flags.get(name, [])]
            processes.append(
                subprocess.Popen(arguments, cwd=ROOT, env=environment, stdout=output, stderr=file)
            )
        try:
            eventually(lambda: _answers(f"{url}/readyz"))
            eventually(lambda: _answers(f"http://127.0.0.1:{ports['flower']}/healthcheck"))
            eventually(lambda: "beat ready" in (folder / "beat").read_text())
            calls = [
                _call(url, token, "talkative", {"canary": "canary-param"}),
                _call(url, token, "poison", {"deed": "exception", "canary": "canary-param"}),
                _call(url, token, "poisonWithoutRerun", {"deed": "kill"}),
                _call(url, token, "returns", {"kind": "object"}),
            ]
            with ThreadPoolExecutor(8) as pool:  # so that a child goes from one to the next
                calls += pool.map(lambda _: _call(url, token, "echo", {"log": True}), range(40))
            soon = (folder / "worker").read_text()
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(timeout=60)
    text = {name: (folder / name).read_text() for name in COMMANDS}
    printed = {name: (folder / f"{name}.out").read_text() for name in COMMANDS}
    return Logged(text, printed, soon, calls, token)


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=10).status_code == 200
    except httpx.HTTPError:
        return False


def _call(url: str, token: str, action: str, params: dict[str, Any]) -> Call:
    headers = {"Authorization": f"Bearer {token}"}
    answer = httpx.post(f"{url}/api/actions/{action}", json=params, headers=headers, timeout=60)
    return Call(action, params, answer.status_code, answer.headers["Run-Id"], answer.json())


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_line_is_json_with_its_time_and_level(logged, name):
    lines = logged.lines(name)
    assert lines
    for line in lines:
        assert line["event"]
        assert line["timestamp"].endswith("Z")
        assert line.get("level") or line["event"] == "call"


@pytest.mark.parametrize(
    ("name", "logger"),
    [("web", "gunicorn.error"), ("beat", "celery.beat"), ("flower", "flower.command")],
)
def test_the_lines_of_the_servers_are_among_them(logged, name, logger):
    assert logger in [line.get("logger") for line in logged.lines(name)]


def test_a_handlers_lines_name_run_and_action_also_those_of_a_library(logged):
    lines = {line["event"]: line for line in logged.about("talkative")}
    assert {"own line", "line of a library"} <= lines.keys()
    assert {line["action"] for line in lines.values()} == {"talkative"}
    assert {line["run_id"] for line in lines.values()} == {logged.calls[0].run_id}


def test_what_a_handler_prints_is_there_at_once_and_names_run_and_action(logged):
    lines = {line["event"]: line for line in logged.about("talkative")}
    printed = {"printed line": "stdout", "without an end": "stdout", "printed error": "stderr"}
    for event, stream in printed.items():
        assert (lines[event]["stream"], lines[event]["action"]) == (stream, "talkative")
        assert event in logged.soon


def test_what_is_logged_wrongly_is_a_line_all_the_same(logged):
    lines = {line["event"]: line for line in logged.about("talkative")}
    assert 'wrong %d ["argument"]' in lines
    wrong = lines['no %d ["number"]']
    assert (wrong["mean"], wrong["half"]) == ("nan", "?")


@pytest.mark.parametrize("name", list(COMMANDS))
def test_nothing_is_beside_the_log(logged, name):
    assert logged.printed[name] == ""


def test_a_worker_tells_its_end(logged):
    assert "worker stopping" in [line["event"] for line in logged.lines("worker")]


def test_a_child_that_goes_from_run_to_run_names_each_run_once(logged):
    lines = [line for line in logged.lines("worker") if line["event"] == "echoes"]
    told = [(line["run_id"], line["action"]) for line in lines]
    assert sorted(told) == sorted((c.run_id, c.action) for c in logged.calls if c.action == "echo")


def test_what_a_handler_raised_is_told_once_with_its_traceback(logged):
    [line] = logged.about("poison")
    assert (line["event"], line["action"]) == ("handler raised", "poison")
    assert "ValueError: canary-exception" in line["exception"]
    assert "canary-exception" not in logged.text["web"]


def test_a_result_that_is_none_is_told_with_its_path_and_type(logged):
    [line] = logged.about("returns")
    assert (line["event"], line["action"]) == ("result refused", "returns")
    assert line["reason"] == "data.at.0: a object is not JSON; convert it first"
    assert "a object is not JSON" not in logged.text["web"]
    assert not any("debug" in call.body for call in logged.calls)


def test_lines_about_a_dead_process_name_its_run_and_action(logged):
    """Ours, and the one that Celery writes."""
    lines = logged.about("poisonWithoutRerun")
    assert "worker process lost" in [line["event"] for line in lines]
    assert "celery.worker.request" in [line.get("logger") for line in lines]
    assert {line["action"] for line in lines} == {"poisonWithoutRerun"}


def test_the_calls_are_in_the_log_of_the_api(logged):
    told = [line for line in logged.lines("web") if line["event"] == "call"]
    expected = {(call.run_id, call.action, call.status) for call in logged.calls}
    assert {(line["run_id"], line["action"], line["status"]) for line in told} == expected
    assert len(told) == len(logged.calls)


def test_no_token_and_no_param_is_in_any_log(logged):
    text = "".join(logged.text.values())
    assert logged.token not in text
    assert "canary-param" not in text
    assert JWT_SECRET not in text
