"""The broker's replica becomes the primary, behind one address: nothing stays on the old one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import redis
from chaos.intervals import read_intervals
from chaos.stack import Stack, running_stack
from forwarder import forwarding

from callboard.stack.folder import DataFolder
from callboard.stack.secrets import keep_secrets
from callboard.stack.supervisor import Supervisor
from callboard.stack.tokens import mint_token
from callboard.stack.valkey import start_valkey

SECONDS = 4  # of the run that is in hand


def test_calls_and_runs_go_on_at_the_new_primary(
    tmp_path: Path, eventually: Callable[..., None]
) -> None:
    with forwarding() as forwarder, Supervisor() as supervisor:
        password = keep_secrets(_folder(tmp_path / "stack")).redis_password
        replica = start_valkey(supervisor, _folder(tmp_path / "replica"), password).wait()

        def behind(url: str) -> str:
            forwarder.port = urlsplit(url).port or 0
            return url.replace(f":{forwarder.port}/", f":{forwarder.address}/")

        with (
            running_stack(tmp_path / "stack", fsync="always", address=behind) as stack,
            redis.Redis(port=forwarder.port, password=password) as first,
            redis.Redis(port=replica.port, password=password) as second,
        ):
            _follow(second, first)
            assert first.wait(1, 60_000) == 1
            run = _call(stack, "longRun", {"key": "k", "seconds": SECONDS}, wait=0)
            eventually(lambda: _status(second, run) == "running")
            second.replicaof("no", "one")
            _follow(first, second)  # whose open connections stay open
            forwarder.port = replica.port
            eventually(lambda: _call_succeeds(stack))
            eventually(lambda: _status(second, run) == "succeeded")
            executed = [each.run_id for each in read_intervals(stack.intervals, {})]
            assert executed.count(run.headers["Run-Id"]) == 1
            assert not stack.problems


def _folder(path: Path) -> DataFolder:
    folder = DataFolder(path)
    folder.create()
    return folder


def _follow(replica: redis.Redis, primary: redis.Redis) -> None:
    """Make a server the replica of another."""
    options = primary.connection_pool.connection_kwargs
    replica.config_set("masterauth", options["password"])
    replica.replicaof("127.0.0.1", options["port"])


def _call(stack: Stack, action: str, params: dict[str, object], wait: int) -> httpx.Response:
    token = mint_token("alice", stack.environment["JWT_SECRET"])
    headers = {"Authorization": f"Bearer {token}", "Prefer": f"wait={wait}"}
    url = f"{stack.url}/api/actions/{action}"
    return httpx.post(url, json=params, headers=headers, timeout=60)


def _call_succeeds(stack: Stack) -> bool:
    return _call(stack, "putProfile", {"key": "k", "amount": 1}, wait=2).status_code == 200


def _status(client: redis.Redis, run: httpx.Response) -> str:
    return (client.hget(f"callboard:run:{run.headers['Run-Id']}", "status") or b"").decode()
