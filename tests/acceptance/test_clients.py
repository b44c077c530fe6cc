"""The clients, against the real stack: `callboard.Client` and the TypeScript one."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from local_stack import Stack

from callboard import Client, fail, ok
from callboard.cli import main
from callboard.errors import NotFound, RunRefused, Unauthorized

HERE = Path(__file__).parent
STRICT = [  # more than --strict: an application may have any of these on
    "--strict",
    "--exactOptionalPropertyTypes",
    "--noUncheckedIndexedAccess",
    "--noUnusedLocals",
    "--noUnusedParameters",
    "--noImplicitReturns",
    "--isolatedModules",
    "--erasableSyntaxOnly",
]


@pytest.fixture
def client(app_stack: Stack):
    with Client(app_stack.url, app_stack.token("alice"), retries=2) as client:
        yield client


def test_call_answers_the_result(client):
    assert client.call("orderTickets", {"event": "evt_1", "tickets": 2}).unwrap()["total"] == 19
    assert client.call("refuse") == fail("Event not found")
    assert not client.call("orderTickets").success


def test_submit_then_wait(client, tmp_path):
    gate = tmp_path / "gate"
    run_id = client.submit("stepwise", {"until": [str(gate)]})
    with pytest.raises(TimeoutError, match="after 0 s"):
        client.wait(run_id, timeout=0)
    gate.touch()
    assert client.wait(run_id) == ok({"attempt": 1})
    assert client.run(run_id)["status"] == "succeeded"


def test_a_quick_run_that_ended_before_the_answer_has_an_id_too(client):
    runs = [client.submit("echo") for _ in range(20)]
    assert all(client.wait(run_id).success for run_id in runs)


def test_events_tell_progress_until_the_end(client):
    seen = list(client.events(client.submit("slow", {"seconds": 1})))
    assert seen[-1]["status"] == "succeeded"
    assert any(run["progress"] for run in seen)


def test_cancel_ends_a_run(client):
    run_id = client.submit("slow", {"seconds": 30})
    client.cancel(run_id)
    assert client.wait(run_id, timeout=60) == fail("Canceled", "canceled")


def test_one_key_is_one_run(client):
    runs = {client.submit("echo", {"n": 1}, idempotency_key="order-1") for _ in range(3)}
    assert len(runs) == 1


def test_a_start_runs_when_it_is_due(client):
    asked = time.monotonic()
    run_id = client.start("echo", {"n": 1}, delay=1)
    assert client.wait(run_id, timeout=120).success
    assert time.monotonic() - asked >= 1


def test_a_batch_starts_what_it_can(client):
    calls = [{"action": "echo", "params": {"n": n}} for n in range(3)]
    *started, refused = client.batch([*calls, {"action": "ecco"}])
    ends = [client.wait(answer["runId"], timeout=120).unwrap() for answer in started]
    assert [end["params"]["n"] for end in ends] == [0, 1, 2]
    assert refused["status"] == 404


def test_what_no_result_can_tell_is_raised(app_stack, client):
    with pytest.raises(RunRefused, match="Did you mean 'echo'"):
        client.submit("ecco")
    with pytest.raises(NotFound):
        client.run("00000000-0000-0000-0000-000000000000")
    with pytest.raises(NotFound):
        list(client.events("00000000-0000-0000-0000-000000000000"))
    with pytest.raises(Unauthorized):
        Client(app_stack.url, "not-a-token").wait("00000000-0000-0000-0000-000000000000")


def test_the_typescript_client_compiles_and_runs(app_stack, tsc, program, tmp_path):
    written = tmp_path / "callboard.ts"
    command = ["client", "--lang", "ts", "--url", app_stack.url, "--out", str(written)]
    done = CliRunner().invoke(main, [*command, "--data-dir", str(tmp_path / "none")])
    assert done.exit_code == 0, done.output
    shutil.copy(HERE / "typescript_usage.ts", tmp_path / "usage.ts")
    (tmp_path / "package.json").write_text('{"type": "module"}')
    target = ["--target", "es2022", "--module", "nodenext", "--types", "node"]
    compiled = subprocess.run(
        [*tsc, *STRICT, *target, "callboard.ts", "usage.ts"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert compiled.returncode == 0, compiled.stdout
    ran = subprocess.run(
        [program("node"), "usage.js", app_stack.url, app_stack.token("alice")],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert (ran.returncode, ran.stdout) == (0, "all is so\n"), ran.stderr
