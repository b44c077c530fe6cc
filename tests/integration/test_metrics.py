"""``/metrics``: what is counted in Redis, and in several gunicorn processes at once."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from ended_runs import end, lost
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from callboard.runs.store import Runs
from callboard.stack.ports import free_port
from worker.archive.archiver import Archiver

ROOT = Path(__file__).parents[2]


def samples(text: str) -> dict[str, float]:
    """``callboard_calls_total{action="work",status="200"}`` -> value."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{k}="{v}"' for k, v in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


@pytest.fixture
def scrape(api: Callable[..., FlaskClient]) -> Callable[[], dict[str, float]]:
    client = api(CALLBOARD_METRICS="true")
    return lambda: samples(client.get("/metrics").text)


class TestShared:
    def test_runs_count_once_when_the_history_has_them(
        self,
        scrape: Callable[[], dict[str, float]],
        runs: Runs,
        archiver: Archiver,
        redis_client: redis.Redis,
    ) -> None:
        end(runs)
        end(runs)
        run_id = end(runs, lost)
        archiver.turn()
        archiver.turn()
        end(runs)
        record = runs.read(run_id)
        assert record is not None
        assert record.call is not None
        runs.retry(record, record.call)
        runs.claim(run_id, "work", "w:2", 5)
        runs.lose(run_id, "w:2")
        runs.claim(run_id, "work", "w:3", 5)
        runs.requeue(run_id, "w:3", delay=30)
        runs.count("refused")
        found = scrape()
        expected = {
            'callboard_runs_total{action="work",status="succeeded"}': 2,
            'callboard_runs_total{action="work",status="failed"}': 1,
            'callboard_run_seconds_count{action="work"}': 3,
            'callboard_run_seconds_bucket{action="work",le="+Inf"}': 3,
            'callboard_queue_wait_seconds_count{action="work"}': 3,
            'callboard_lost_total{action="work"}': 1,
            'callboard_retries_total{action="work"}': 1,
            "callboard_refused_messages_total": 1,
            "callboard_open_runs": 1,
            "callboard_history_backlog": 1,
            'callboard_queue_depth{queue="callboard"}': redis_client.llen("callboard"),
            "callboard_broker_up": 1,
        }
        assert {name: found.get(name) for name in expected} == expected

    def test_times_fall_into_their_buckets(
        self,
        scrape: Callable[[], dict[str, float]],
        runs: Runs,
        archiver: Archiver,
        redis_client: redis.Redis,
    ) -> None:
        run_id = end(runs, lost)
        archiver.turn()
        record = runs.read(run_id)
        assert record is not None
        assert record.call is not None
        runs.retry(record, record.call)
        runs.claim(run_id, "work", "w:2", 5)
        redis_client.hincrby(f"callboard:run:{run_id}", "started", -2000)
        runs.finish(run_id, "work", "w:2", lost(run_id))
        archiver.turn()
        found = scrape()
        slow = 'callboard_run_seconds_bucket{action="work",le="%s"}'
        assert (found[slow % "1.0"], found[slow % "2.5"]) == (1, 2)
        assert 2 <= found['callboard_run_seconds_sum{action="work"}'] < 3

    def test_the_lateness_of_schedules_falls_into_its_buckets(
        self, scrape: Callable[[], dict[str, float]], runs: Runs
    ) -> None:
        for ms in (0, 5, 6, 60_000, 60_001):
            runs.observe("late", "a:b", ms)
        found = scrape()
        late = 'callboard_schedule_lateness_seconds_bucket{le="%s",schedule="a:b"}'
        bounds = ("0.005", "0.01", "30.0", "60.0", "+Inf")
        assert [found[late % bound] for bound in bounds] == [2, 3, 3, 4, 5]
        assert found['callboard_schedule_lateness_seconds_sum{schedule="a:b"}'] == 120.012

    def test_names_that_are_no_action_share_one_label(
        self, api: Callable[..., FlaskClient], make_token: Callable[..., str]
    ) -> None:
        client = api(CALLBOARD_METRICS="true")
        headers = {"Authorization": f"Bearer {make_token()}"}
        before = samples(client.get("/metrics").text)
        for name in ("one", "two", "x" * 500):
            assert client.post(f"/api/actions/{name}", headers=headers).status_code == 404
        after = samples(client.get("/metrics").text)
        unknown = 'callboard_calls_total{action="unknown",status="404"}'
        assert after[unknown] - before.get(unknown, 0) == 3
        assert not [name for name in after if '"one"' in name]

    def test_it_answers_without_the_broker(self, api: Callable[..., FlaskClient]) -> None:
        away = f"redis://127.0.0.1:{free_port()}/0"
        found = samples(api(CALLBOARD_METRICS="true", REDIS_URL=away).get("/metrics").text)
        assert found["callboard_broker_up"] == 0


class Gunicorn:
    """The API in several processes, as in production."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        command = [sys.executable, "-m", "gunicorn", "api:create_app()", "--bind", self.url[7:]]
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment)

    def alive(self) -> bool:
        try:
            return httpx.get(f"{self.url}/healthz").status_code == 200
        except httpx.HTTPError:
            return False

    def workers(self) -> list[int]:
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [int(child) for child in children.split()]

    def metrics_folders(self) -> set[Path]:
        """Where its processes keep what they count: files that they have mapped."""
        maps = "".join(Path(f"/proc/{pid}/maps").read_text() for pid in self.workers())
        return {Path(found) for found in re.findall(r"/\S*/callboard-metrics-[\w-]+(?=/)", maps)}


@pytest.fixture
def gunicorn(
    redis_url: str, mongodb_uri: str, eventually: Callable[..., None]
) -> Iterator[Gunicorn]:
    server = Gunicorn(
        {
            **os.environ,
            "REDIS_URL": redis_url,
            "MONGODB_URI": mongodb_uri,
            "SECRET_KEY": "k" * 40,
            "JWT_SECRET": "test-secret-of-more-than-thirty-two-bytes",
            "OWNER_USER_ID": "owner",
            "CALLBOARD_METRICS": "true",
            "PROMETHEUS_MULTIPROC_DIR": "",
            "WEB_CONCURRENCY": "3",
        }
    )
    try:
        eventually(server.alive)
        eventually(lambda: len(server.workers()) == 3)
        yield server
    finally:
        server.process.terminate()
        server.process.wait(timeout=60)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_several_processes_add_up_and_one_that_died_still_counts(
    gunicorn: Gunicorn, make_token: Callable[..., str], eventually: Callable[..., None]
) -> None:
    headers = {"Authorization": f"Bearer {make_token()}", "Prefer": "respond-async"}
    calls = 'callboard_calls_total{action="heartbeat",status="202"}'

    def call(number: int) -> None:
        for _ in range(number):  # a new connection each: any process may take it
            response = httpx.post(f"{gunicorn.url}/api/actions/heartbeat", headers=headers)
            assert response.status_code == 202

    def seen() -> set[Any]:
        return {samples(httpx.get(f"{gunicorn.url}/metrics").text).get(calls) for _ in range(8)}

    call(12)
    assert seen() == {12}
    before = gunicorn.workers()
    os.kill(before[0], signal.SIGKILL)
    eventually(lambda: len(set(gunicorn.workers()) - set(before)) == 1)
    eventually(gunicorn.alive)
    call(3)
    assert seen() == {15}
    folders = gunicorn.metrics_folders()
    assert len(folders) == 1
    gunicorn.process.terminate()
    gunicorn.process.wait(timeout=60)
    assert not any(folder.exists() for folder in folders)


def test_the_dashboard_shows_metrics_that_there_are(
    scrape: Callable[[], dict[str, float]], runs: Runs, archiver: Archiver
) -> None:
    run_id = end(runs, lost)
    archiver.turn()
    record = runs.read(run_id)
    assert record is not None
    assert record.call is not None
    runs.retry(record, record.call)
    runs.claim(run_id, "work", "w:2", 5)
    runs.lose(run_id, "w:2")
    runs.claim(run_id, "work", "w:3", 5)
    runs.requeue(run_id, "w:3", delay=30)
    runs.observe("late", "digest", 20)
    dashboard = (ROOT / "docs" / "grafana-dashboard.json").read_text()
    used = set(re.findall(r"callboard_[a-z_]+", dashboard))
    known = {name.partition("{")[0] for name in scrape()}
    known |= {"callboard_calls_total", "callboard_call_seconds_bucket"}
    assert used
    assert used <= known
