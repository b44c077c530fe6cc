"""A submission: enqueued as its block begins; it tells what the broker said and how it ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
import redis
from ended_runs import done, work
from flask.testing import FlaskClient

from api.call.submission import Submission
from api.services import Services
from callboard.errors import KeyReused, QueueFull
from callboard.runs.seal import Call
from callboard.runs.store import Runs

Submit = Callable[..., Submission]
KEY = ("alices-key", "digest")


@pytest.fixture
def submit(services: Services) -> Submit:
    """``with submit(idempotency=...) as submission``: a call of alice's."""

    def build(**options: Any) -> Submission:
        given = {"max_queue": 10, "result_ttl": 60, **options}
        return services.replies.submit(str(uuid4()), work, Call(caller="alice"), **given)

    return build


def soon() -> float:
    return time.monotonic() + 60


def end(runs: Runs, run_id: str) -> None:
    """As a worker does."""
    runs.claim(run_id, "work", "w:1", 5)
    assert runs.finish(run_id, "work", "w:1", done(run_id))


def test_it_is_queued_as_the_block_begins(submit: Submit, redis_client: redis.Redis) -> None:
    prepared = submit()
    assert redis_client.llen("callboard") == 0
    with prepared as submission:
        assert submission.accepted() == (submission.run_id, False)
        assert redis_client.llen("callboard") == 1


def test_its_result_comes_when_the_run_ends(submit: Submit, services: Services, runs: Runs) -> None:
    with submit() as submission:
        assert submission.accepted().run_id == submission.run_id
        worker = threading.Thread(target=end, args=(runs, submission.run_id))
        worker.start()
        assert submission.result(soon()) == done(submission.run_id)
        assert submission.accepted() == (submission.run_id, False)
        worker.join()
    assert len(services.replies) == 0


def test_it_has_no_result_before_the_run_ends(submit: Submit) -> None:
    with submit() as submission:
        assert submission.result(time.monotonic() + 0.05) is None
        assert submission.accepted() == (submission.run_id, False)


def test_a_known_key_leads_to_its_run_without_a_wait(submit: Submit) -> None:
    with submit(idempotency=KEY) as first:
        assert not first.accepted().joined
    with submit(idempotency=KEY) as second:
        assert second.result(soon()) is None
        assert second.accepted() == (first.run_id, True)


def test_what_the_broker_refuses_is_raised(submit: Submit) -> None:
    with submit(idempotency=KEY) as submission:
        submission.accepted()
    with submit(idempotency=(KEY[0], "another-digest")) as reused, pytest.raises(KeyReused):
        reused.accepted()
    with submit(max_queue=1) as full:
        assert full.result(soon()) is None
        with pytest.raises(QueueFull):
            full.accepted()


def test_who_does_not_wait_is_told_queued_without_a_look_at_the_record(
    client: FlaskClient, make_token: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(self: Runs, run_id: str) -> None:
        raise AssertionError(f"{run_id} was read")

    monkeypatch.setattr(Runs, "read", read)
    headers = {"Authorization": f"Bearer {make_token('alice')}", "Prefer": "respond-async"}
    response = client.post("/api/actions/work", headers=headers)
    assert response.status_code == 202
    assert response.get_json()["data"] == {
        "runId": response.headers["Run-Id"],
        "status": "queued",
    }
