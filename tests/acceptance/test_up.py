"""`callboard up` as a user meets it: the first call, Ctrl-C, and what goes wrong."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pymongo
import pytest
import redis
from local_stack import STOP, Stack

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")

ONE_ACTION = """
from callboard import action, ok

@action
def greet(ctx):
    return ok("{greeting}")
"""


@pytest.fixture
def application(tmp_path: Path) -> Path:
    """An application of one action, in a folder that holds nothing else."""
    folder = tmp_path / "application"
    (folder / "actions").mkdir(parents=True)
    (folder / "actions" / "__init__.py").touch()
    (folder / "actions" / "greetings.py").write_text(ONE_ACTION.format(greeting="hello"))
    return folder


def _gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"  # ended; nobody has asked for its exit code yet


def _users(stack: Stack) -> int:
    with stack.database() as database:
        return database["users"].count_documents({})


def _ended(stack: Stack) -> str:
    """What it printed, once it has ended by itself with exit code 1 and one clear message."""
    assert stack.process.wait(timeout=90) == 1, stack.printed
    assert not re.search("^Traceback", stack.printed, re.MULTILINE)  # of its own
    assert stack.printed.count("callboard: ") == 1
    return stack.printed


# The calls


@pytest.fixture
def event(stack: Stack) -> str:
    """An event to invite somebody to."""
    with stack.database() as database:
        fields = {"data": {"attendeeIds": []}, "createdBy": "alice"}
        database["events"].replace_one({"_id": "evt_1"}, fields, upsert=True)
    return "evt_1"


def test_invite_attendee_adds_an_attendee(stack, event):
    answer = stack.call("inviteAttendee", {"eventId": event, "attendeeId": "usr_2"})
    assert answer.status_code == 200
    assert answer.json() == {"success": True, "data": {"recordId": event}}


def test_invite_attendee_requires_auth(stack, event):
    answer = stack.call("inviteAttendee", {"eventId": event, "attendeeId": "usr_2"}, as_user=None)
    assert answer.status_code == 401
    assert answer.json() == {"success": False, "error": "Unauthorized", "code": "unauthorized"}


def test_the_printed_call_can_be_pasted(stack):
    (line,) = [line for line in stack.printed.splitlines() if line.startswith("curl ")]
    done = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, check=True)
    assert '"success":true' in done.stdout.replace(" ", "")


def test_the_first_call_needs_no_token_to_be_pasted(stack):
    (line,) = [line for line in stack.printed.splitlines() if " call ensureUserRow" in line]
    done = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["success"]


def test_one_token_is_printed_and_kept_nowhere(stack):
    (token,) = re.findall(r"eyJ[\w.-]+", stack.printed)
    assert f"{stack.url}/#token={token}" in stack.printed
    assert f"{stack.url}/docs" in stack.printed
    assert stack.call("dailyDigest", Authorization=f"Bearer {token}", as_user=None).is_success
    kept = [path.read_text(errors="replace") for path in stack.data_dir.glob("**/*.log")]
    assert token not in "".join([*kept, json.dumps(stack.announced)])
    assert (stack.data_dir / "running.json").stat().st_mode & 0o777 == 0o600


def test_nothing_is_warned_of_once_it_is_ready(stack):
    ready = stack.printed.partition("Callboard is ready")[2]
    assert not re.search(r"flower +\| .*\[(warning|error) ", ready)


def test_flower_answers_on_this_machine_only(stack):
    assert stack.announced["flower_url"].startswith("http://127.0.0.1:")
    assert httpx.get(f"{stack.announced['flower_url']}/healthcheck", timeout=60).status_code == 200


@pytest.mark.parametrize("arguments", ["call ensureUserRow", "doctor"])
def test_other_commands_find_the_running_stack(stack, arguments):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "callboard.cli", *shlex.split(arguments)),
            *("--data-dir", stack.data_dir),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_secrets_are_in_no_log_and_on_no_command_line(stack):
    secret = stack.announced["environment"]["SECRET_KEY"]
    logs = [path.read_text() for path in (stack.data_dir / "log").iterdir()]
    assert not [text for text in [*logs, *stack.descendants().values()] if secret in text]


# The end


def test_a_restart_keeps_records_and_secrets_and_a_stop_leaves_no_process(start, eventually):
    secrets = []
    for number in (signal.SIGINT, signal.SIGTERM):
        stack: Stack = start()
        stack.wait_ready()
        secrets.append(stack.announced["environment"]["SECRET_KEY"])
        assert _users(stack) == len(secrets) - 1
        assert stack.call("ensureUserRow", as_user=f"user-{number}").json()["success"]
        processes = stack.descendants()
        assert len(processes) >= 6
        assert stack.stop(number) < STOP
        assert stack.process.returncode == 0
        assert "Traceback" not in stack.printed
        eventually(lambda processes=processes: all(map(_gone, processes)))
    assert secrets[0] == secrets[1]


def test_a_killed_up_leaves_no_process(start, eventually):
    stack = start()
    stack.wait_ready()
    processes = stack.descendants()
    stack.process.kill()
    eventually(lambda: all(map(_gone, processes)))


@pytest.mark.parametrize("name", ["celery -A worker worker", "valkey-server"])
def test_one_death_stops_the_rest_and_is_told(start, eventually, name):
    stack: Stack = start()
    stack.wait_ready()
    processes = stack.descendants()
    victim = next(pid for pid, command in processes.items() if name in command)
    os.kill(victim, signal.SIGKILL)
    assert "was killed by SIGKILL" in _ended(stack)
    eventually(lambda: all(map(_gone, processes)))


# What keeps it from starting


@pytest.mark.parametrize("option", ["--port", "--flower-port"])
def test_a_port_in_use_is_told(start, option):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        told = _ended(start(option, port))
    assert f"Port {port}" in told
    assert option in told


def test_a_damaged_data_folder_is_told(start, tmp_path):
    (tmp_path / "data" / "valkey" / "appendonlydir").mkdir(parents=True)
    (tmp_path / "data" / "valkey" / "appendonlydir" / "appendonly.aof.manifest").write_text("x\n")
    assert f"move {tmp_path / 'data' / 'valkey'} away" in _ended(start())


def test_a_folder_without_actions_is_told_before_a_server_starts(start, tmp_path):
    told = _ended(start(cwd=tmp_path, CALLBOARD_ACTIONS="nothing_of_this_name"))
    assert f"There is no nothing_of_this_name/ in {tmp_path}" in told
    assert "callboard init" in told
    assert not (tmp_path / "data").exists()


def test_a_named_server_that_is_away_is_told_soon(start):
    started = time.monotonic()
    told = _ended(start(REDIS_URL="redis://:secret@127.0.0.1:1/0"))
    assert time.monotonic() - started < 20  # it waits for no server for so long
    assert "The server that REDIS_URL names cannot be used" in told
    assert "secret" not in told


# Servers of the user's own


def test_named_servers_are_used_and_none_is_started(
    start, application, valkey_server, mongodb_server, database_name
):
    (application / "servers.env").write_text(
        f"REDIS_URL={valkey_server.url}\n"
        f"export MONGODB_URI='{mongodb_server.database_uri(database_name)}'\n"
        f"CALLBOARD_STOP_GRACE=9\n"
    )
    stack: Stack = start(cwd=application, env_file="servers.env", CALLBOARD_STOP_GRACE="3")
    stack.wait_ready()
    assert stack.call("greet").json()["data"] == "hello"
    assert ".env     sets REDIS_URL, MONGODB_URI\n" in stack.printed
    assert not [line for line in stack.descendants().values() if re.search("valkey|secantus", line)]
    stack.stop()
    with redis.Redis.from_url(valkey_server.url) as client:
        client.flushdb()
    with pymongo.MongoClient(mongodb_server.uri) as client:
        client.drop_database(database_name)


def test_an_import_error_is_told_with_file_and_line(start, application):
    broken = application / "actions" / "greetings.py"
    broken.write_text("import nothing_of_this_name\n")
    assert f"{broken}:1: cannot import actions.greetings" in _ended(start(cwd=application))


def test_a_wrong_setting_is_told(start):
    assert "CALLBOARD_WAIT" in _ended(start(CALLBOARD_WAIT="soon"))


# --reload


def test_a_changed_action_answers_without_a_restart(start, application, eventually):
    stack: Stack = start("--reload", cwd=application)
    stack.wait_ready()
    assert stack.call("greet").json()["data"] == "hello"
    file = application / "actions" / "greetings.py"
    file.write_text(ONE_ACTION.format(greeting="good day"))
    eventually(_answers(stack, "good day"))
    eventually(lambda: "Worker exiting" in stack.printed)  # of the old API
    eventually(_answers(stack, "good day"))
    # what does not import is told, and the old code runs on
    file.write_text("this is no Python\n")
    eventually(lambda: "Not reloaded, the old code runs on" in stack.printed)
    assert stack.call("greet").json()["data"] == "good day"
    # nor does what ends the process that imports it
    told = stack.printed.count("Not reloaded")
    file.write_text("import os\nos._exit(0)\n")
    eventually(lambda: stack.printed.count("Not reloaded") > told)
    assert stack.call("greet").json()["data"] == "good day"
    # saved twice in a second, by the same number of bytes; with a package that is moved in
    file.write_text(ONE_ACTION.format(greeting="one"))
    moved = application / "outside"
    moved.mkdir()
    (moved / "more.py").write_text(ONE_ACTION.format(greeting="more").replace("greet", "more"))
    file.write_text(ONE_ACTION.format(greeting="two"))
    moved.rename(application / "actions" / "inside")
    eventually(_answers(stack, "two"))
    eventually(_answers(stack, "more", action="more"))


def _answers(stack: Stack, greeting: str, action: str = "greet") -> Callable[[], bool]:
    def ask() -> bool:
        try:
            return stack.call(action).json().get("data") == greeting
        except httpx.TransportError:  # it hit the API worker that was about to go
            return False

    return ask
