"""Processes die, stop and lose their connections; what callers were told stays true."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from chaos.app.limited import AT_ONCE
from chaos.intervals import Interval, overlapping, read_intervals
from chaos.stack import (
    API,
    BROKER,
    CHILDREN,
    DATABASE,
    WORKERS,
    Stack,
    children,
    running_stack,
)

from callboard.stack.tokens import mint_token

LEASE = 5.0  # seconds
RECOVERY = LEASE + 15.0  # seconds in which a run goes on after its worker was killed, also on a
# machine that is busy: on one at rest it is the lease and 5 s
GRACE = 6.0  # seconds that a process has for what it has in hand when it is asked to stop
OUTAGE = 13.0  # seconds: Celery itself would ask for the broker after 2, 6, 12 and 20 s
DATABASE_AWAY = 12.0  # seconds: longer than `appendSoon` has, much shorter than the others
LONG = LEASE + 2.0  # seconds: a run that outlives its first lease

Call = Callable[..., httpx.Response]
Eventually = Callable[..., None]


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """An API and two workers, all of which may be killed."""
    folder = tmp_path_factory.mktemp("recovery")
    variables = {"CALLBOARD_RECOVERY": f"{LEASE:g}", "CALLBOARD_STOP_GRACE": f"{GRACE:g}"}
    with running_stack(folder, fsync="always", **variables) as stack:
        yield stack


@pytest.fixture
def stack(two_workers: Stack) -> Iterator[Stack]:
    """The stack, ready again whatever the test before has killed."""
    two_workers.wait_ready()
    yield two_workers
    assert not two_workers.problems


@pytest.fixture
def call(stack: Stack) -> Call:
    """Call an action: ``call("appendLine", {"key": "k", "amount": 1}, Prefer="wait=5")``."""
    token = mint_token("alice", stack.environment["JWT_SECRET"])

    def post(action: str, params: Any, **headers: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}", **headers}
        url = f"{stack.url}/api/actions/{action}"
        return httpx.post(url, json=params, headers=headers, timeout=120)

    return post


@pytest.fixture
def begin(call: Call) -> Callable[..., str]:
    """Start runs that take their time: ``begin("key", seconds=5)`` answers the run id."""

    def start(key: str, seconds: float = LONG) -> str:
        response = call("longRun", {"key": key, "seconds": seconds}, Prefer="respond-async")
        assert response.status_code == 202
        return response.headers["Run-Id"]

    return start


def record(stack: Stack, run_id: str) -> dict[str, str]:
    """The run record as it is in Redis, without what is sealed."""
    names = ("status", "holder", "attempt", "lost")
    with stack.redis() as client:
        values = client.hmget(f"callboard:run:{run_id}", names)
    return {name: (value or b"0").decode() for name, value in zip(names, values, strict=True)}


def ended(stack: Stack, run_id: str) -> bool:
    return record(stack, run_id)["status"] in ("succeeded", "failed", "canceled")


def worker_of(stack: Stack, run_id: str) -> str:
    """The worker that has the run in hand; "" for none."""
    holder = record(stack, run_id)["holder"].split(":")
    pid = int(holder[1]) if len(holder) == 3 else 0
    return next((name for name in WORKERS if pid in children(stack.pid(name))), "")


def executions(stack: Stack, run_id: str) -> list[Interval]:
    return [each for each in read_intervals(stack.intervals, {}) if each.run_id == run_id]


def rows(stack: Stack, collection: str, key: str) -> int:
    with stack.database() as database:
        return database[collection].count_documents({"data.key": key})


def test_a_run_of_a_killed_worker_goes_on_with_another(
    stack: Stack, begin: Callable[..., str], eventually: Eventually
) -> None:
    run_id = begin("killed", seconds=4)
    eventually(lambda: worker_of(stack, run_id))
    first = worker_of(stack, run_id)
    stack.kill(first)
    eventually(lambda: record(stack, run_id)["attempt"] == "2", within=RECOVERY)
    eventually(lambda: ended(stack, run_id))
    assert record(stack, run_id) | {"holder": ""} == {
        "status": "succeeded", "holder": "", "attempt": "2", "lost": "1",
    }  # fmt: skip
    assert rows(stack, "long_runs", "killed") == 1


def test_a_worker_that_is_asked_to_stop_ends_the_short_and_hands_back_the_long(
    stack: Stack, begin: Callable[..., str], eventually: Eventually
) -> None:
    long = begin("handed-back", seconds=GRACE + 8)
    eventually(lambda: worker_of(stack, long))
    short = [begin(f"short-{number}", seconds=1.5) for number in range(2 * CHILDREN - 1)]
    eventually(lambda: all(worker_of(stack, run_id) for run_id in short))
    stopped = worker_of(stack, long)
    assert stopped in [worker_of(stack, run_id) for run_id in short]
    stack.roll(stopped)
    eventually(lambda: all(ended(stack, run_id) for run_id in [long, *short]))
    assert [record(stack, run_id)["attempt"] for run_id in short] == ["1"] * len(short)
    assert record(stack, long)["attempt"] == "2"
    assert record(stack, long)["lost"] == "0"
    assert not overlapping(executions(stack, long))


def test_a_worker_outlives_a_child_that_is_killed_before_its_loop_runs(
    stack: Stack, begin: Callable[..., str], eventually: Eventually
) -> None:
    name = WORKERS[0]
    stack.roll(name)
    eventually(lambda: children(stack.pid(name)))
    os.kill(children(stack.pid(name))[0], signal.SIGKILL)
    started = stack.pid(name)
    stack.wait_ready()
    eventually(lambda: len(children(started)) == CHILDREN)
    runs = [begin(f"early-{number}", seconds=1.5) for number in range(2 * CHILDREN)]
    eventually(lambda: all(worker_of(stack, run_id) for run_id in runs))
    assert stack.pid(name) == started


def test_the_kernel_ends_a_child_before_its_worker(stack: Stack, eventually: Eventually) -> None:
    worker = stack.pid(WORKERS[0])
    eventually(lambda: {oom_score(pid) for pid in children(worker)} == {500})
    assert oom_score(worker) < 500


def oom_score(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


def test_a_worker_that_loses_every_connection_keeps_its_run(
    stack: Stack, begin: Callable[..., str], eventually: Eventually
) -> None:
    run_id = begin("cut-off")
    for seconds in (1, 2, 4):
        eventually(lambda: _executed_for(stack, run_id) > seconds)  # noqa: B023 - used at once
        with stack.redis() as client:
            client.client_kill_filter(_type="normal", skipme=True)
            client.client_kill_filter(_type="pubsub", skipme=True)
    eventually(lambda: ended(stack, run_id))
    assert record(stack, run_id)["status"] == "succeeded"
    assert record(stack, run_id)["attempt"] == "1"
    assert len(executions(stack, run_id)) == 1


def _executed_for(stack: Stack, run_id: str) -> float:
    return sum(each.end - each.start for each in executions(stack, run_id))


def test_a_worker_that_was_paused_longer_than_its_lease_lets_go(
    stack: Stack, begin: Callable[..., str], eventually: Eventually
) -> None:
    run_id = begin("paused")
    eventually(lambda: executions(stack, run_id))  # claimed, and the handler has begun
    paused = stack.pid(worker_of(stack, run_id))
    frozen = [paused, *children(paused)]
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    try:
        eventually(lambda: record(stack, run_id)["attempt"] == "2", within=RECOVERY)
    finally:
        thawed_at = time.monotonic()
        for pid in reversed(frozen):
            os.kill(pid, signal.SIGCONT)
    eventually(lambda: ended(stack, run_id))
    first, second = executions(stack, run_id)
    assert first.end < thawed_at + LONG / 2
    assert (second.pid in frozen, record(stack, run_id)["status"]) == (False, "succeeded")
    assert rows(stack, "long_runs", "paused") == 1


def test_a_limit_holds_whatever_dies(stack: Stack, call: Call, eventually: Eventually) -> None:
    """By what the handlers themselves wrote down; and in the end nobody has waited in vain."""
    runs: dict[tuple[str, str], list[str]] = {}
    for number in range(8):
        for key in ("slot-a", "slot-b"):
            for action in ("takeSlot", "takeSlotAsync"):
                seconds = 0.2 + number % 3 * 0.3
                answer = call(action, {"key": key, "seconds": seconds}, Prefer="respond-async")
                runs.setdefault((action, key), []).append(answer.headers["Run-Id"])
    everyone = [run_id for of_key in runs.values() for run_id in of_key]

    def ends() -> int:
        return sum(ended(stack, run_id) for run_id in everyone)

    for worker, way in zip(WORKERS, (stack.kill, stack.roll), strict=True):
        before = ends()
        way(worker)
        eventually(lambda: ends() > before or ends() == len(everyone), within=RECOVERY)  # noqa: B023
    eventually(lambda: ends() == len(everyone))
    assert {record(stack, run_id)["status"] for run_id in everyone} == {"succeeded"}
    for of_key in runs.values():
        intervals = [each for run_id in of_key for each in executions(stack, run_id)]
        assert {each.run_id for each in intervals} == set(of_key)
        assert most_at_once(intervals) <= AT_ONCE


def most_at_once(intervals: list[Interval]) -> int:
    return max(sum(a.start <= b.start < a.end for a in intervals) for b in intervals)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_queued_runs_survive_a_restart_of_the_broker(
    stack: Stack, begin: Callable[..., str], eventually: Eventually, number: signal.Signals
) -> None:
    runs = [begin(f"queued-{number}-{index}", seconds=4) for index in range(3 * CHILDREN)]
    eventually(lambda: "queued" in [record(stack, run_id)["status"] for run_id in runs])
    (stack.restart if number == signal.SIGTERM else stack.kill)(BROKER)
    eventually(lambda: stack.ready(BROKER))
    eventually(lambda: all(ended(stack, run_id) for run_id in runs))
    assert {record(stack, run_id)["status"] for run_id in runs} == {"succeeded"}
    assert [rows(stack, "long_runs", f"queued-{number}-{i}") for i in range(len(runs))] == [1] * 6


def test_a_broker_that_was_away_is_noticed_soon(
    stack: Stack, begin: Callable[..., str], eventually: Eventually
) -> None:
    gone = time.monotonic()
    with stack.without(BROKER):
        eventually(lambda: time.monotonic() > gone + OUTAGE)
    eventually(lambda: stack.ready(BROKER))
    eventually(lambda: httpx.get(f"{stack.url}/readyz", timeout=60).status_code == 200)
    run_id = begin("after-outage", seconds=0.1)
    eventually(lambda: worker_of(stack, run_id) or ended(stack, run_id), within=5)


def test_a_worker_stops_in_time_also_while_the_broker_is_away(
    stack: Stack, begin: Callable[..., str], eventually: Eventually
) -> None:
    run_id = begin("stop-without-broker", seconds=GRACE + 1)
    eventually(lambda: worker_of(stack, run_id))
    stopped = worker_of(stack, run_id)
    with stack.without(BROKER):
        stack.roll(stopped)
        eventually(lambda: not stack.leaving, within=GRACE + 15)
    eventually(lambda: stack.ready(BROKER))
    eventually(lambda: ended(stack, run_id))
    assert record(stack, run_id)["status"] == "succeeded"
    assert rows(stack, "long_runs", "stop-without-broker") == 1


def test_the_kernel_looks_for_a_broker_that_says_nothing(
    stack: Stack, eventually: Eventually
) -> None:
    port, worker = urlsplit(stack.environment["REDIS_URL"]).port or 0, stack.pid(WORKERS[0])
    # where messages come from, and where events go to; the keeper asks more often itself
    eventually(lambda: sum(seconds <= 5 for seconds in keepalive_seconds(worker, port)) >= 2)


def keepalive_seconds(pid: int, port: int) -> list[float]:
    """When the kernel will ask the other end of a process's connections to this port."""
    mine = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            mine.append(os.readlink(path).removeprefix("socket:[").rstrip("]"))
    found = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        there, (timer, when) = fields[2].partition(":")[2], fields[5].split(":")
        if fields[9] in mine and int(there, 16) == port and timer == "02":  # 2: keepalive
            found.append(int(when, 16) / os.sysconf("SC_CLK_TCK"))
    return found


def test_runs_outlast_a_database_that_is_away(
    stack: Stack, call: Call, eventually: Eventually
) -> None:
    accounts = {"source": "one", "target": "two"}
    call("openAccounts", dict.fromkeys(accounts.values(), 10))
    params = {"amount": 1, **accounts}
    before = params | {"key": "before"}
    eventually(lambda: call("appendLineAsync", before) and all(map(stack.loops, WORKERS)))
    gone = time.monotonic()
    with ThreadPoolExecutor(4) as pool:

        def send(action: str, key: str, wait: int = 60) -> Future[httpx.Response]:
            headers = {"Prefer": f"wait={wait}", "Idempotency-Key": key}
            return pool.submit(call, action, params | {"key": key}, **headers)

        with stack.without(DATABASE):
            patient = [
                send("appendLine", "away-plain"), send("appendLineAsync", "away-async"),
                send("transfer", "away-transaction"),
            ]  # fmt: skip
            refused = send("appendSoon", "away-soon").result()
            early = send("transfer", "away-transaction", wait=1).result()
            eventually(lambda: time.monotonic() > gone + DATABASE_AWAY, within=2 * DATABASE_AWAY)
        told = [each.result() for each in patient]
        again = send("appendSoon", "away-soon").result()
    assert (early.status_code, early.json()["success"]) == (504, False)
    assert [(each.status_code, each.json()["success"]) for each in told] == [(200, True)] * 3
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "2")
    assert (again.status_code, again.headers["Run-Id"]) == (200, refused.headers["Run-Id"])
    kinds = ("plain", "async", "soon")
    assert [rows(stack, "ledger", f"away-{key}") for key in kinds] == [1, 1, 1]
    assert rows(stack, "transfers", "away-transaction") == 1


def test_a_broker_that_is_full_refuses_and_recovers(
    stack: Stack, call: Call, begin: Callable[..., str], eventually: Eventually
) -> None:
    params = {"key": "full", "amount": 1}
    in_hand = begin("in-hand", seconds=3)
    eventually(lambda: worker_of(stack, in_hand))
    with stack.redis() as client:
        client.config_set("maxmemory", 1)
        try:
            asked_at = time.monotonic()
            refused = call("putProfile", params)
            seconds = time.monotonic() - asked_at
            eventually(lambda: rows(stack, "long_runs", "in-hand"))
        finally:
            client.config_set("maxmemory", 0)
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "2")
    assert seconds < 6  # 2 s, and what a busy machine adds
    assert call("putProfile", params).json()["success"]
    eventually(lambda: ended(stack, in_hand))
    assert record(stack, in_hand)["status"] == "succeeded"
    assert rows(stack, "long_runs", "in-hand") == 1


def test_an_api_that_is_asked_to_stop_answers_who_waits(
    stack: Stack, call: Call, eventually: Eventually
) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(call, "longRun", {"key": "api-stop", "seconds": 1.5})
        eventually(lambda: rows(stack, "long_runs", "api-stop") or _one_in_hand(stack))
        stack.restart(API)
        response = waiting.result()
    assert response.status_code == 200
    assert response.json()["success"]


def test_an_api_that_stops_before_the_run_ends_says_where_it_is(
    stack: Stack, call: Call, eventually: Eventually
) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(call, "longRun", {"key": "api-gone", "seconds": GRACE + 2})
        eventually(lambda: _one_in_hand(stack))
        stack.restart(API)
        response = waiting.result()
    run_id = response.headers["Run-Id"]
    assert response.status_code == 504
    assert response.json()["runId"] == run_id
    assert response.headers["Location"] == f"/api/runs/{run_id}"
    eventually(lambda: ended(stack, run_id))
    assert record(stack, run_id)["status"] == "succeeded"
    assert record(stack, run_id)["attempt"] == "1"


def _one_in_hand(stack: Stack) -> bool:
    with stack.redis() as client:
        return bool(client.zcard("callboard:open"))


def start_worker(stack: Stack, *flags: str) -> subprocess.CompletedProcess[str]:
    """Start a worker that is expected to refuse."""
    return subprocess.run(
        [sys.executable, "-m", "celery", "-A", "worker", "worker", *flags],
        env={"PATH": "", **stack.environment},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        check=False,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize("pool", ["threads", "gevent"])
def test_a_pool_that_cannot_stop_a_handler_is_refused(stack: Stack, pool: str) -> None:
    done = start_worker(stack, "--pool", pool)
    assert done.returncode != 0
    assert "cannot stop a handler. Start without --pool." in done.stderr


def test_a_broker_that_throws_keys_away_is_refused(stack: Stack) -> None:
    with stack.redis() as client:
        client.config_set("maxmemory", 10**9, "maxmemory-policy", "allkeys-lru")
        try:
            done = start_worker(stack)
        finally:
            client.config_set("maxmemory", 0, "maxmemory-policy", "noeviction")
    assert done.returncode != 0
    assert "maxmemory 1000000000 and maxmemory-policy allkeys-lru" in done.stderr
