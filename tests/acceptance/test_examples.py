"""Every example of `examples/`, run for real; and the pages that show some of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from doc_pages import python_blocks
from local_stack import ROOT, Stack, started

from callboard import Client
from callboard.stack.ports import free_port

EXAMPLES = ROOT / "examples"
TESTED = {"beside", "enqueue", "invitations", "invite", "order", "typescript", "waiting"}
NAMED = ("REDIS_URL", "MONGODB_URI")  # the servers of these tests
INVITED = {"attendeeIds": ["usr_1", "usr_2"]}


def run(
    folder: Path, *command: str, environment: dict[str, str], **options: Any
) -> tuple[int, str, str]:
    """Run a program to its end; its exit code and what it printed."""
    done = subprocess.run(
        command, cwd=folder, env={"PATH": os.environ["PATH"], **environment},
        capture_output=True, text=True, check=False, timeout=300, **options,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@contextmanager
def running(folder: Path, *command: str, environment: dict[str, str]) -> Iterator[None]:
    """A program beside, ended with the block; its output is in ``folder``."""
    with (folder / f"{command[1]}.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=folder, stdout=log, stderr=subprocess.STDOUT,
            env={"PATH": os.environ["PATH"], **environment},
        )  # fmt: skip
        try:
            yield
            assert process.poll() is None, (folder / f"{command[1]}.log").read_text()
        finally:
            process.terminate()
            process.wait(timeout=60)


def test_every_example_is_tested_and_says_what_it_is() -> None:
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir()} - {"__pycache__"}
    assert folders == TESTED
    listed = (EXAMPLES / "README.md").read_text()
    for name in TESTED:
        assert (EXAMPLES / name / "README.md").is_file()
        assert f"({name}/README.md)" in listed


def test_the_pages_show_the_examples_as_they_are() -> None:
    shown = {block.splitlines()[0]: block for block in python_blocks(ROOT / "docs" / "beside.md")}
    for name in ("app.py", "tasks.py", "actions/orders.py"):
        assert shown[f"# {name}"] == (EXAMPLES / "beside" / name).read_text()
    [block, *_] = python_blocks(ROOT / "docs" / "starting.md")
    assert block == (EXAMPLES / "invitations" / "actions" / "events.py").read_text()


@pytest.fixture
def event(stack: Stack) -> Iterator[str]:
    """An event that usr_1 attends."""
    with stack.database() as database:
        record = {"_id": "evt_1", "data": {"attendeeIds": ["usr_1"]}, "createdBy": "alice"}
        database["events"].replace_one({"_id": "evt_1"}, record, upsert=True)
        yield "evt_1"
        database["events"].delete_one({"_id": "evt_1"})


def attendees(stack: Stack) -> Any:
    with stack.database() as database:
        return (database["events"].find_one({"_id": "evt_1"}) or {}).get("data")


@pytest.fixture
def client_environment(stack: Stack) -> dict[str, str]:
    return {"CALLBOARD_URL": stack.url, "CALLBOARD_TOKEN": stack.token()}


def test_invite(stack: Stack, event: str, client_environment: dict[str, str]) -> None:
    command = (sys.executable, "invite.py")
    told = run(EXAMPLES / "invite", *command, event, "usr_2", environment=client_environment)
    assert told == (0, "evt_1\n", "")
    assert attendees(stack) == INVITED
    told = run(EXAMPLES / "invite", *command, "none", "usr_2", environment=client_environment)
    assert told == (1, "", "Not invited: Record not found\n")


def test_enqueue(stack: Stack, event: str) -> None:
    environment = stack.announced["environment"]
    command = (sys.executable, "examples/enqueue/enqueue.py", event)
    first = run(ROOT, *command, environment=environment, input="usr_1\nusr_2\n")
    assert first[0] == 0, first[2]
    with Client(stack.url, stack.token("owner")) as client:
        runs = first[1].split()
        assert len(runs) == 2
        assert all(client.wait(run_id, timeout=60).success for run_id in runs)
    assert attendees(stack) == INVITED
    assert run(ROOT, *command, environment=environment, input="usr_1\nusr_2\n") == first


def test_typescript(
    stack: Stack,
    event: str,
    client_environment: dict[str, str],
    tsc: list[str],
    program: Callable[..., str],
    tmp_path: Path,
) -> None:
    shutil.copy(EXAMPLES / "typescript" / "invite.ts", tmp_path)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    command = (sys.executable, "-m", "callboard.cli", "client", "--lang", "ts", "--url", stack.url)
    written = run(tmp_path, *command, "--out", "callboard.ts", environment=client_environment)
    assert written[0] == 0, written
    target = ["--target", "es2022", "--module", "nodenext", "--types", "node"]
    files = ["callboard.ts", "invite.ts"]
    compiled = run(tmp_path, *tsc, "--strict", *target, *files, environment={})
    assert compiled[0] == 0, compiled
    told = run(
        tmp_path, program("node"), "invite.js", event, "usr_2", environment=client_environment
    )
    assert told == (0, "invited\n", "")
    assert attendees(stack) == INVITED


def test_waiting(tmp_path: Path) -> None:
    """The service answers none before all 300 wait."""
    project = tmp_path / "project"
    shutil.copytree(EXAMPLES / "waiting", project)
    port = free_port()
    with (
        running(project, "weather.py", str(port), "300", environment={}),
        started(tmp_path, cwd=project, UPSTREAMS=f"weather=http://127.0.0.1:{port}") as stack,
    ):
        stack.wait_ready()
        environment = {"CALLBOARD_URL": stack.url, "CALLBOARD_TOKEN": stack.token()}
        told = run(project, sys.executable, "ask.py", "300", environment=environment)
        assert told[0] == 0, told
        with stack.database() as database:
            assert database["forecasts"].count_documents({}) == 300


@pytest.mark.parametrize(("name", "many"), [("invitations", 3), ("order", 4)])
def test_its_own_tests(tmp_path: Path, name: str, many: int) -> None:
    project = tmp_path / "project"
    shutil.copytree(EXAMPLES / name, project)
    variables = {name: value for name, value in os.environ.items() if name in NAMED}
    told = run(project, sys.executable, "-m", "pytest", "-q", environment=variables)
    assert (told[0], f"{many} passed" in told[1]) == (0, True), told


def test_invitations(tmp_path: Path, eventually: Callable[..., None]) -> None:
    project = tmp_path / "project"
    shutil.copytree(EXAMPLES / "invitations", project)
    port = free_port()
    variables = {"INTEGRATIONS_URL": f"http://127.0.0.1:{port}", "APP_OWNER_JWT": "a.b.c"}

    def mails() -> list[str]:
        return (project / f"{port}.log").read_text().splitlines()[1:]

    with (
        running(project, "gateway.py", str(port), environment={}),
        started(tmp_path, cwd=project, **variables) as stack,
        ExitStack() as opened,
    ):
        eventually((project / f"{port}.log").read_text)  # it listens
        stack.wait_ready()
        client = opened.enter_context(Client(stack.url, stack.token()))
        database = opened.enter_context(stack.database())
        starts = datetime.now(UTC) + timedelta(days=3)
        event = {"title": "Tea", "attendeeIds": ["usr_1"], "startsAt": starts.isoformat()}
        database["events"].insert_one({"_id": "evt_1", "data": event, "createdBy": "alice"})
        invite = {"eventId": "evt_1", "attendeeId": "usr_2"}
        assert client.call("inviteAttendee", invite).success
        assert client.call("inviteAttendee", invite).success
        eventually(mails)
        assert attendees(stack)["attendeeIds"] == ["usr_1", "usr_2"]
        [reminder] = client.request("GET", "/api/runs?status=waiting").envelope["data"]["runs"]
        assert reminder["action"] == "remind"
        assert client.call("remind", {}).error.startswith("Unknown action")
        path = f"/api/runs/{reminder['runId']}/reschedule"  # to the day before, which is now
        assert client.request("POST", path, json={"delay": 0}).status == 200
        assert client.wait(reminder["runId"], timeout=60).success
        assert mails() == ["usr_2: You are invited: Tea", "usr_2: Tomorrow: Tea"]


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, httpx.Client, Any]]:
    """Callboard, the Flask application and the Celery worker on one Redis and one MongoDB: the
    stack, a user of the application, and what sends its Celery task."""
    folder = tmp_path_factory.mktemp("beside")
    project = folder / "project"
    shutil.copytree(EXAMPLES / "beside", project)
    with started(folder, cwd=project) as stack:
        stack.wait_ready()
        environment = {
            **stack.announced["environment"],
            "FLASK_SECRET_KEY": "not-a-secret",
            "CALLBOARD_URL": stack.url,
        }
        port = str(free_port())

        def send(*arguments: str) -> None:
            text = f"import tasks; tasks.send_reminder.delay(*{arguments!r})"
            told = run(project, sys.executable, "-c", text, environment=environment)
            assert told[0] == 0, told

        flask = ("-m", "flask", "--app", "app", "run", "--port", port)
        celery = ("-m", "celery", "-A", "tasks", "worker", "--concurrency", "2")
        with (
            running(project, *flask, environment=environment),
            running(project, *celery, environment=environment),
            httpx.Client(
                base_url=f"http://127.0.0.1:{port}",
                transport=httpx.HTTPTransport(retries=8),
                timeout=60,
            ) as user,
        ):
            user.post("/login", data={"user": "alice"}).raise_for_status()
            yield stack, user, send


def test_the_application_starts_a_run_and_shows_its_result(beside) -> None:
    stack, user, _ = beside
    answer = user.post("/orders", json={"item": "tea"})
    assert answer.status_code == 202
    ended = user.get(f"/orders/{answer.json()['runId']}").json()
    assert (ended["status"], ended["createdBy"]) == ("succeeded", "alice")
    with stack.database() as database:
        order = database["orders"].find_one({"_id": ended["result"]["data"]["recordId"]})
    assert (order["data"], order["createdBy"]) == ({"item": "tea"}, "alice")
    refused = user.post("/orders", json={"thing": "tea"})
    assert (refused.status_code, "item" in refused.json()["error"]) == (422, True)


def test_a_token_of_the_application_is_good_for_the_api(beside) -> None:
    stack, user, _ = beside
    token = user.get("/token").json()["token"]
    with Client(stack.url, token) as client:
        assert client.call("placeOrder", {"item": "salt"}).success


def test_a_celery_task_starts_a_run_once_and_each_worker_keeps_to_its_queues(
    beside, eventually
) -> None:
    stack, _, send = beside
    for _ in range(2):
        send("alice", "order-1")
    send("alice", "order-2")
    with stack.database() as database, Client(stack.url, stack.token("owner")) as client:
        reminders = database["reminders"]
        eventually(lambda: reminders.count_documents({}) == 2)
        started = time.monotonic()
        calls = [client.submit("placeOrder", {"item": str(n)}) for n in range(30)]
        assert all(client.wait(run_id, timeout=60).success for run_id in calls)
        assert time.monotonic() - started < 15  # a stolen message would come back after 5 s each
        assert reminders.count_documents({}) == 2
