"""What the chaos suite's report has of a run whose caller got no answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis
from chaos.inspection import inspected
from ended_runs import work

from callboard.runs.seal import Call
from callboard.runs.store import Runs


@dataclass
class Places:
    """Of a stack, what the inspection looks at."""

    url: str
    intervals: Path
    log_folder: Path

    @contextmanager
    def redis(self) -> Iterator[redis.Redis]:
        with redis.Redis.from_url(self.url) as client:
            yield client


@pytest.fixture
def stack(redis_url: str, tmp_path: Path) -> Any:
    places = Places(redis_url, tmp_path / "intervals", tmp_path / "log")
    places.intervals.mkdir()
    places.log_folder.mkdir()
    return places


def test_it_tells_the_record_the_executions_and_the_log(runs: Runs, stack: Any) -> None:
    run_id = str(uuid4())
    call = Call(caller="alice", params={"canary": "canary-param"}, jwt="canary-jwt")
    runs.accept(run_id, work, call, max_queue=9, result_ttl=60)
    queued = inspected(stack, run_id)
    assert "status queued" in queued
    assert "queue callboard: 1 deep, its message is at 0" in queued
    runs.claim(run_id, "work", "w:1", 5)
    (stack.intervals / "7-1-loop").write_text(f"0 other start 1.0\n1 {run_id} start 2.0\n")
    (stack.log_folder / "worker.log").write_text(f"about another\nabout {run_id}\n")
    told = inspected(stack, run_id)
    for part in ("status running, ", "attempt 1", "holder w:1", "lease in ", "looked at: in "):
        assert part in told
    assert "executed by 7-1-loop: from " in told
    assert told.endswith(f"worker.log: about {run_id}")
    assert "canary" not in told


def test_it_tells_what_there_is(stack: Any) -> None:
    assert "record: none" in inspected(stack, str(uuid4()))
    stack.url = "redis://127.0.0.1:1/0"
    assert "record: ConnectionError" in inspected(stack, str(uuid4()))
