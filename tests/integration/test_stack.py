"""The embedded servers and the supervisor: what starts, what is told, and what is left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pymongo
import pytest
import redis
from pymongo.errors import OperationFailure

from callboard.errors import ConfigurationError
from callboard.stack import secantus, valkey
from callboard.stack.folder import DataFolder
from callboard.stack.ports import free_port, require_free
from callboard.stack.process import Program
from callboard.stack.ready import no_transaction, transaction_commits
from callboard.stack.secantus import start_mongodb
from callboard.stack.secrets import keep_secrets
from callboard.stack.supervisor import ProcessFailed, Supervisor
from callboard.stack.valkey import start_valkey

only_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, needs prctl")


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    folder = DataFolder(tmp_path / "data")
    folder.create()
    return folder


@pytest.fixture
def program(tmp_path: Path):
    """Build a program from Python code; it is ready once it has printed something."""

    def build(name: str, code: str) -> Program:
        log = tmp_path / f"{name}.log"
        return Program(
            name=name,
            command=[sys.executable, "-uc", code],
            log=log,
            ready=lambda: bool(log.read_text()),
        )

    return build


def _gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"  # ended; nobody has asked for its exit code yet


# The servers


def test_valkey_asks_for_its_password(valkey_server):
    with redis.Redis(port=valkey_server.port) as client, pytest.raises(redis.AuthenticationError):
        client.ping()


def test_valkey_keeps_what_it_took(valkey_server):
    with redis.Redis.from_url(valkey_server.url) as client:
        assert client.config_get("appendonly")["appendonly"] == "yes"
        assert client.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"


def test_valkey_keeps_its_data_across_a_restart(folder):
    for seen in (None, b"1"):
        with Supervisor() as supervisor:
            server = start_valkey(supervisor, folder, "password").wait()
            with redis.Redis.from_url(server.url) as client:
                assert client.getset("kept", "1") == seen


def test_mongodb_asks_for_its_password(mongodb_server):
    with (
        pymongo.MongoClient(port=mongodb_server.port, directConnection=True) as client,
        pytest.raises(OperationFailure),
    ):
        client.app.events.find_one()


def test_mongodb_commits_transactions(mongodb_uri):
    assert transaction_commits(mongodb_uri, timeout=60) < 60


def test_mongodb_keeps_its_data_across_a_restart(folder):
    for seen in (0, 1):
        with Supervisor() as supervisor:
            server = start_mongodb(supervisor, folder, "password").wait()
            with pymongo.MongoClient(server.uri) as client:
                events = client.get_default_database()["events"]
                assert events.count_documents({}) == seen
                events.insert_one({"_id": seen})


def test_the_first_user_survives_a_start_that_was_cut_off(folder):
    with Supervisor() as supervisor:
        start_mongodb(supervisor, folder, "first").wait()
    (folder.path / "mongodb/data/callboard-user-created").unlink()
    with Supervisor() as supervisor:
        server = start_mongodb(supervisor, folder, "second").wait()
        assert transaction_commits(server.uri, timeout=60) < 60


@only_linux
def test_no_password_is_on_a_command_line(valkey_server, mongodb_server):
    commands = [
        path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if _is_mine(path)
    ]
    assert commands
    for password in (valkey_server.password, mongodb_server.password):
        assert not [command for command in commands if password.encode() in command]


def _is_mine(cmdline: Path) -> bool:
    try:
        fields = (cmdline.parent / "stat").read_text().rpartition(")")[2].split()
        return int(fields[1]) == os.getpid()
    except OSError:
        return False


def test_damaged_valkey_data_is_told_with_the_folder(folder):
    damaged = folder.subfolder("valkey/appendonlydir") / "appendonly.aof.manifest"
    damaged.write_text("this is no manifest\n")
    with Supervisor() as supervisor, pytest.raises(ProcessFailed) as announced:
        start_valkey(supervisor, folder, "password").wait()
    assert "Valkey ended with exit code 1" in str(announced.value)
    assert f"move {folder.path / 'valkey'} away" in str(announced.value)


def test_damaged_mongodb_data_is_told_with_the_folder(folder):
    with Supervisor() as supervisor:
        start_mongodb(supervisor, folder, "password").wait()
    (folder.path / "mongodb/data/WiredTiger.turtle").write_text("this is no WiredTiger\n")
    with Supervisor() as supervisor, pytest.raises(ProcessFailed) as announced:
        start_mongodb(supervisor, folder, "password").wait()
    assert f"move {folder.path / 'mongodb'} away" in str(announced.value)


def test_a_machine_without_a_valkey_binary_is_told(folder, monkeypatch):
    monkeypatch.setattr(metadata, "files", lambda package: [])
    with Supervisor() as supervisor, pytest.raises(ConfigurationError, match="Set REDIS_URL"):
        start_valkey(supervisor, folder, "password")


@pytest.mark.parametrize(
    ("module", "start"),
    [(valkey, start_valkey), (secantus, start_mongodb)],
    ids=["valkey", "mongo"],
)
def test_a_port_that_was_taken_meanwhile_is_no_error(folder, monkeypatch, module, start):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free = module.free_port
        answers = iter([taken.getsockname()[1]])
        monkeypatch.setattr(module, "free_port", lambda: next(answers, None) or free())
        with Supervisor() as supervisor:
            assert start(supervisor, folder, "password").wait().port != taken.getsockname()[1]


# The data folder


def test_secrets_are_for_their_owner_only(folder):
    keep_secrets(folder)
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert (folder.path / "secrets.json").stat().st_mode & 0o777 == 0o600


def test_secrets_stay_the_same(folder):
    assert keep_secrets(folder) == keep_secrets(folder)


def test_the_folder_has_one_holder(folder):
    second = DataFolder(folder.path).locked()
    with folder.locked(), pytest.raises(ConfigurationError, match="Another `callboard up`"):
        second.__enter__()


def test_a_file_in_its_place_is_told(tmp_path):
    (tmp_path / "data").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be used as the data folder"):
        DataFolder(tmp_path / "data").create()


def test_a_port_in_use_is_told_with_the_option():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"Port {port} .* in use.* --flower-port"):
            require_free("127.0.0.1", port, "--flower-port")


# The supervisor


def test_a_death_is_told_with_its_reason(program):
    with Supervisor() as supervisor:
        supervisor.start(program("beat", "print('out of cheese'); raise SystemExit(3)"))
        with pytest.raises(ProcessFailed) as announced:
            supervisor.watch()
    assert "beat ended with exit code 3" in str(announced.value)
    assert "out of cheese" in str(announced.value)


def test_a_killed_process_is_told_with_the_signal(program):
    with Supervisor() as supervisor:
        worker = supervisor.start(program("worker", "print(1); import time; time.sleep(60)"))
        supervisor.wait_ready([worker], 60)
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(ProcessFailed, match="worker was killed by SIGKILL"):
            supervisor.watch()


def test_what_never_gets_ready_is_told(program):
    with Supervisor() as supervisor:
        mute = supervisor.start(program("web", "import time; time.sleep(60)"))
        with pytest.raises(ProcessFailed, match=r"web was not ready after 0.2 s"):
            supervisor.wait_ready([mute], 0.2)


def test_what_is_waited_for_is_told_as_it_changes(program, tmp_path):
    announced: list[str] = []

    def announce(text: str) -> None:
        announced.append(text)
        first = text.removeprefix("Waiting for ").split(",")[0].split()[0]
        (tmp_path / first).touch()

    def late(name: str) -> str:
        """A program that is ready once it is the first that is waited for."""
        return (
            f"import os, time\nwhile not os.path.exists({str(tmp_path / name)!r}):"
            " time.sleep(0.02)\nprint(1, flush=True); time.sleep(60)"
        )

    with Supervisor(announce=announce) as supervisor:
        started = [supervisor.start(program(name, late(name))) for name in ("web", "worker")]
        supervisor.wait_ready(started, 60)
    assert announced == ["Waiting for web, worker ...", "Waiting for worker ..."]


@only_linux
def test_the_end_leaves_no_process_of_the_group(program, eventually):
    code = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = os.fork()\n"
        "if child: print(child)\n"
        "time.sleep(60)\n"
    )
    with Supervisor(grace=0.2) as supervisor:
        stubborn = supervisor.start(program("stubborn", code))
        supervisor.wait_ready([stubborn], 60)
        (child,) = map(int, stubborn.last_lines(1))
    assert not stubborn.running
    eventually(lambda: _gone(child))


def test_servers_stop_last(program, tmp_path):
    ended = tmp_path / "ended"
    code = (
        "import signal, sys, time\n"
        "def end(*_):\n"
        "    open({file!r}, 'a').write({name!r} + ' ')\n"
        "    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "print(1)\n"
        "time.sleep(60)\n"
    )
    with Supervisor() as supervisor:
        started = [
            supervisor.start(
                program(name, code.format(file=str(ended), name=name)), server=name == "server"
            )
            for name in ("server", "worker")
        ]
        supervisor.wait_ready(started, 60)
    assert ended.read_text().split() == ["worker", "server"]


@only_linux
def test_a_killed_supervisor_leaves_nothing(tmp_path, eventually):
    code = (
        "import sys, pathlib\n"
        "from callboard.stack.process import Program\n"
        "from callboard.stack.supervisor import Supervisor\n"
        "with Supervisor() as supervisor:\n"
        "    process = supervisor.start(Program(name='sleep', command=['sleep', '60'],\n"
        "        log=pathlib.Path(sys.argv[1]), ready=lambda: True))\n"
        "    print(process.pid, flush=True)\n"
        "    supervisor.watch()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "log"], stdout=subprocess.PIPE, text=True
    ) as supervisor:
        assert supervisor.stdout
        pid = int(supervisor.stdout.readline())
        eventually(lambda: Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"sleep"))
        supervisor.kill()
    eventually(lambda: _gone(pid))


def test_a_database_that_commits_nothing_is_told_without_its_password(mongodb_uri):
    assert no_transaction(mongodb_uri, timeout=60) is None
    uri = f"mongodb://user:hidden@127.0.0.1:{free_port()}/app"
    announced = no_transaction(uri, timeout=0.1)
    assert announced
    assert "Connection refused" in announced
    assert "hidden" not in announced


@only_linux
def test_a_program_that_has_ended_keeps_its_id_until_its_group_is_ended(program, eventually):
    """Else another program's group, which has that id by then, would be killed in its place."""
    with Supervisor() as supervisor:
        process = supervisor.start(program("short", "raise SystemExit(3)"))
        eventually(lambda: not process.running)
        assert process.ending == "ended with exit code 3"
        process.send(signal.SIGTERM)
        assert Path(f"/proc/{process.pid}").exists()
    assert not Path(f"/proc/{process.pid}").exists()
