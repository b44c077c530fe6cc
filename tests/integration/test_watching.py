"""Requests that watch a run: read once per change, bounded per caller, let go at the end."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from uuid import uuid4

import pytest
import redis
from ended_runs import done, work
from flask.testing import FlaskClient

from api.call.waiting import HungUp
from api.runs import watching
from api.services import Services
from callboard.connections.keys import Keys
from callboard.runs.seal import Call
from callboard.runs.store import Runs
from callboard.stack.ports import free_port

KEYS = Keys()

Api = Callable[..., FlaskClient]
Eventually = Callable[..., None]
MANY = 50


@pytest.fixture
def run_id(runs: Runs) -> str:
    """A run of alice's that is running."""
    return started(runs)


def started(runs: Runs, caller: str | None = "alice") -> str:
    run_id = str(uuid4())
    runs.accept(run_id, work, Call(caller=caller), max_queue=1000, result_ttl=60)
    runs.claim(run_id, "work", "w:1", 5)
    return run_id


@pytest.fixture
def reads(services: Services, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The runs that were read from Redis."""
    counted: list[str] = []
    read = Runs.read

    def counting(self: Runs, run_id: str) -> Any:
        counted.append(run_id)
        return read(self, run_id)

    monkeypatch.setattr(Runs, "read", counting)
    return counted


@pytest.fixture
def watchers(services: Services) -> Iterator[Callable[..., list[list[Any]]]]:
    """Threads that watch a run: ``watchers(run_id, 50)`` -> for each, what it was told."""
    threads: list[threading.Thread] = []

    def start(run_id: str, number: int) -> list[list[Any]]:
        told: list[list[Any]] = [[] for _ in range(number)]

        def collect(mine: list[Any]) -> None:
            with services.watching.watch(run_id) as watch:
                for seen in watch.changes():
                    mine.append(seen and seen.data)

        threads.extend(threading.Thread(target=collect, args=(mine,)) for mine in told)
        for thread in threads[-number:]:
            thread.start()
        return told

    yield start
    services.replies.let_go()
    for thread in threads:
        thread.join()


def test_however_many_watch_a_run_a_change_is_read_once(
    services: Services,
    run_id: str,
    reads: list[str],
    watchers: Callable[..., list[list[Any]]],
    eventually: Eventually,
) -> None:
    told = watchers(run_id, MANY)
    eventually(lambda: all(told))
    eventually(lambda: len(services.replies) == MANY)
    for step in (0.25, 0.5, 0.75):
        reads.clear()
        note(services.runs, run_id, step)
        eventually(lambda step=step: all(fraction(mine) == step for mine in told))  # type: ignore[misc]
        assert few(reads)
    reads.clear()
    end(services.runs, run_id)
    eventually(lambda: all(mine[-1]["status"] == "succeeded" for mine in told))
    assert few(reads)
    eventually(lambda: len(services.replies) == 0)
    assert all(len(mine) == 5 for mine in told)  # running, three times progress, the end


def note(runs: Runs, run_id: str, fraction: float) -> None:
    progress = json.dumps({"fraction": fraction, "message": None}).encode()
    assert runs.note_progress(run_id, "work", "w:1", progress)


def fraction(told: list[Any]) -> float | None:
    progress = told[-1]["progress"]
    return progress and progress["fraction"]


def few(reads: list[str]) -> bool:
    """One, where all are told at once, as greenlets are; threads may begin to read before."""
    return 1 <= len(reads) <= 3


def end(runs: Runs, run_id: str) -> None:
    assert runs.finish(run_id, "work", "w:1", done(run_id))


def test_who_comes_later_sees_the_run_as_it_is_then(
    services: Services,
    run_id: str,
    watchers: Callable[..., list[list[Any]]],
    eventually: Eventually,
) -> None:
    early = watchers(run_id, 1)
    eventually(lambda: all(early))
    for step in (0.1, 0.2, 0.3, 0.4):
        note(services.runs, run_id, step)
        late = watchers(run_id, 3)
        eventually(lambda late=late: all(late))  # type: ignore[misc]
        assert all(mine[0]["progress"]["fraction"] == step for mine in late)


def test_what_changed_while_the_line_was_away_is_seen_when_it_is_back(
    services: Services,
    run_id: str,
    redis_client: redis.Redis,
    watchers: Callable[..., list[list[Any]]],
    eventually: Eventually,
) -> None:
    told = watchers(run_id, 3)
    eventually(lambda: all(told))
    note(services.runs, run_id, 0.1)
    eventually(lambda: all(fraction(mine) == 0.1 for mine in told))
    redis_client.hdel(f"callboard:run:{run_id}", "watchers")  # nobody is told of the next one
    note(services.runs, run_id, 0.2)
    redis_client.client_kill_filter(_type="pubsub")
    eventually(lambda: all(fraction(mine) == 0.2 for mine in told))


def test_who_has_hung_up_is_let_go(services: Services, run_id: str, eventually: Eventually) -> None:
    ends: list[str] = []

    def stream() -> None:
        with services.watching.watch(run_id) as watch:
            list(watch.changes())
        ends.append("stream")

    def wait() -> None:
        with services.watching.watch(run_id) as watch, pytest.raises(HungUp):
            watch.end(time.monotonic() + 60)
        ends.append("wait")

    threads = [threading.Thread(target=target) for target in (stream, wait)]
    for thread in threads:
        thread.start()
    eventually(lambda: len(services.replies) == 2)
    services.replies.hung_up({thread.ident for thread in threads if thread.ident})
    for thread in threads:
        thread.join(60)
    assert sorted(ends) == ["stream", "wait"]
    assert len(services.replies) == 0


def test_a_read_that_fails_fails_once_for_all(
    api: Api, run_id: str, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    away: Services = api(REDIS_URL=f"redis://127.0.0.1:{free_port()}/0").application.extensions[
        "callboard"
    ]
    looked: list[str] = []
    watch = Runs.watch
    monkeypatch.setattr(
        Runs, "watch", lambda self, *rest: (looked.append("look"), watch(self, *rest))[1]
    )
    since = time.monotonic()
    reads = watching._Reads(run_id)
    for _ in range(5):
        with pytest.raises(Exception, match="not available"):
            away.watching.read(reads, since)
    assert looked == ["look"]


class TestStreams:
    @pytest.fixture(autouse=True)
    def two_at_once(self, services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(services.watching.streams, "_most", 2)
        monkeypatch.setattr(services.watching.waits, "_most", 1)

    @pytest.fixture
    def open_stream(
        self, client: FlaskClient, make_token: Callable[..., str]
    ) -> Iterator[Callable[..., Any]]:
        with ExitStack() as streams:

            def opened(run_id: str, sub: str | None = "alice", **options: Any) -> Any:
                headers = {"Authorization": f"Bearer {make_token(sub)}"} if sub else {}
                path = f"/api/runs/{run_id}/events"
                return streams.enter_context(client.get(path, headers=headers, **options))

            yield opened

    def test_one_caller_has_so_many_and_no_more(
        self, open_stream: Callable[..., Any], run_id: str
    ) -> None:
        first, second = open_stream(run_id), open_stream(run_id)
        assert (first.status_code, second.status_code) == (200, 200)
        assert first.headers["X-Accel-Buffering"] == "no"
        refused = open_stream(run_id)
        assert refused.status_code == 429
        assert int(refused.headers["Retry-After"]) >= 1
        assert "2 at once" in refused.get_json()["error"]
        assert open_stream(run_id, "owner").status_code == 200
        first.close()
        assert open_stream(run_id).status_code == 200

    def test_one_that_is_never_read_or_not_found_holds_no_place(
        self, open_stream: Callable[..., Any], client: FlaskClient, run_id: str,
        make_token: Callable[..., str],
    ) -> None:  # fmt: skip
        headers = {"Authorization": f"Bearer {make_token()}"}
        for _ in range(4):
            assert open_stream(str(uuid4())).status_code == 404
            assert client.head(f"/api/runs/{run_id}/events", headers=headers).status_code == 200
            open_stream(run_id).close()
        assert open_stream(run_id).status_code == 200

    def test_without_a_token_an_address_is_a_caller(
        self, open_stream: Callable[..., Any], services: Services
    ) -> None:
        run_id = started(services.runs, caller=None)
        here = {"environ_base": {"REMOTE_ADDR": "192.0.2.1"}}
        codes = [open_stream(run_id, None, **here).status_code for _ in range(3)]
        assert codes == [200, 200, 429]
        there = {"environ_base": {"REMOTE_ADDR": "192.0.2.2"}}
        assert open_stream(run_id, None, **there).status_code == 200

    def test_its_events_come_as_they_happen(
        self, open_stream: Callable[..., Any], services: Services, run_id: str
    ) -> None:
        lines = open_stream(run_id).response
        assert next(lines).startswith(b"event: status\ndata: {")
        note(services.runs, run_id, 0.5)
        assert next(lines).startswith(b"event: progress\n")
        end(services.runs, run_id)
        assert b'"succeeded"' in next(lines)
        with pytest.raises(StopIteration):
            next(lines)

    def test_a_silent_one_is_kept_alive(
        self, open_stream: Callable[..., Any], run_id: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(watching, "KEEP_ALIVE_SECONDS", 0.05)
        lines = open_stream(run_id).response
        next(lines)
        assert [next(lines), next(lines)] == [b": still running\n\n"] * 2

    def test_requests_that_wait_are_bounded_too(
        self, client: FlaskClient, services: Services, run_id: str,
        make_token: Callable[..., str], eventually: Eventually,
    ) -> None:  # fmt: skip
        path, codes = f"/api/runs/{run_id}?wait=30", []
        headers = {"Authorization": f"Bearer {make_token()}"}
        waiting = threading.Thread(
            target=lambda: codes.append(client.get(path, headers=headers).get_json()["data"])
        )
        waiting.start()
        eventually(lambda: len(services.replies) == 1)
        other = client.application.test_client()
        assert other.get(path, headers=headers).status_code == 429
        end(services.runs, run_id)
        waiting.join()
        assert codes[0]["status"] == "succeeded"
