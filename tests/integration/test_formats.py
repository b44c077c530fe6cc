"""Two versions on one Redis: what one wrote the other runs, reads and stores, or leaves alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kept_runs
import kept_starts
import pytest
import redis
from ended_runs import SEALER
from flask.testing import FlaskClient
from scheduled_app import ScheduledApp
from structlog.testing import capture_logs

from callboard import ActionContext, ActionResult, action, ok
from callboard.connections.keys import Keys
from callboard.registry import Registry
from callboard.runs.format import FORMAT, PLAIN, START
from callboard.runs.history import History
from callboard.runs.message import Wakeup
from callboard.runs.store import Runs
from worker.archive.archiver import MINE_SECONDS, Archiver
from worker.runs.execution import execute
from worker.services import Services

NEWER = FORMAT + 1
TOLD = "left for a newer worker: upgrade this one"

#: What the first version reads a call with: it takes these fields and no other.
FIRST_CALL = {
    *("caller", "claims", "jwt", "params", "scheduled", "acceptance", "reply", "trace", "expires"),
}

versions = pytest.mark.parametrize("file", kept_runs.FILES, ids=lambda file: file.stem)


@action
def work(ctx: ActionContext, params: dict[str, Any]) -> ActionResult:
    return ok({"hello": params["name"], "user": ctx.user_id, "attempt": ctx.attempt})


@pytest.fixture
def services(app: ScheduledApp) -> Iterator[Services]:
    services = Services(app.settings, Registry(actions={"work": work}))
    services.store = app.store
    yield services
    services.runs.close()


@pytest.fixture
def now() -> kept_runs.Kept:
    """What this version writes."""
    return kept_runs.load(kept_runs.FILES[-1])


class TestWrittenBefore:
    @versions
    @pytest.mark.parametrize(("state", "attempt"), [("queued", 1), ("lapsed", 2)])
    def test_a_run_is_run_or_taken_over(
        self, services: Services, redis_client: redis.Redis, file: Path, state: str, attempt: int
    ) -> None:
        run_id = kept_runs.put_back(redis_client, kept_runs.load(file), state)
        assert execute(services, work, run_id, tuple).end == "succeeded"
        record = services.runs.read(run_id)
        assert record is not None
        assert record.outcome is not None
        assert json.loads(record.outcome.body)["data"] == {
            "hello": "Zoë", "user": "alice", "attempt": attempt,
        }  # fmt: skip

    @versions
    def test_a_message_wakes(self, services: Services, file: Path) -> None:
        kept = kept_runs.load(file)
        wakeup, _ = services.read(kept_runs.wakeup_of(kept)) or (None, None)
        assert wakeup == Wakeup("actions.work", kept["queued"]["id"], wakeup and wakeup.display)

    @versions
    def test_a_missing_message_is_sent_again(
        self, services: Services, redis_client: redis.Redis, file: Path
    ) -> None:
        kept = kept_runs.load(file)
        kept_runs.put_back(redis_client, kept, "queued")
        assert services.runs.sweep() == []
        assert redis_client.lrange("callboard", 0, -1) == [kept_runs.wakeup_of(kept)]

    @versions
    def test_an_end_is_read_and_goes_into_the_history(
        self,
        runs: Runs,
        redis_client: redis.Redis,
        archiver: Archiver,
        history: History,
        file: Path,
    ) -> None:
        run_id = kept_runs.put_back(redis_client, kept_runs.load(file), "ended")
        record = runs.read(run_id)
        assert record is not None
        assert (record.caller, record.status, record.attempt) == ("alice", "succeeded", 1)
        assert archiver.turn() == 1
        past = history.find(run_id)
        assert past is not None
        assert past.outcome is not None
        assert json.loads(past.outcome.body)["data"] == {"hello": "Zoë"}


class TestWrittenNow:
    def test_has_the_form_that_is_kept(
        self, runs: Runs, redis_client: redis.Redis, now: kept_runs.Kept, tmp_path: Path
    ) -> None:
        written = kept_runs.write(redis_client, runs, work)
        file = tmp_path / "today.json"
        file.write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n")
        assert kept_runs.form(written, SEALER) == kept_runs.form(now, SEALER), (
            f"What is written of a run has changed. Keep {file} in {kept_runs.FOLDER}, under "
            "today's date, and raise callboard.runs.format.FORMAT if an older version would get "
            "it wrong."
        )
        assert {written[state]["record"]["v"] for state in kept_runs.STATES} == {str(PLAIN)}

    @pytest.mark.parametrize("part", [*kept_runs.STATES, "message", "message headers"])
    def test_has_all_that_the_version_before_looks_for(
        self, now: kept_runs.Kept, part: str
    ) -> None:
        before = kept_runs.form(kept_runs.load(kept_runs.FILES[-2]), SEALER)
        assert before[part] <= kept_runs.form(now, SEALER)[part]

    def test_a_call_has_no_field_that_the_version_before_would_stumble_over(
        self, now: kept_runs.Kept
    ) -> None:
        assert kept_runs.form(now, SEALER)["call"] <= FIRST_CALL


class TestStarts:
    """Runs that were started: record version 2."""

    started = pytest.mark.parametrize("file", kept_starts.FILES, ids=lambda file: file.stem)

    @started
    def test_one_that_waits_for_its_time_is_released_and_run(
        self, services: Services, redis_client: redis.Redis, file: Path
    ) -> None:
        [run_id] = kept_starts.put_back(redis_client, kept_starts.load(file), "waiting")
        assert services.runs.release(9, 9) == 1
        assert execute(services, work, run_id, tuple).end == "succeeded"
        record = services.runs.read(run_id)
        assert record is not None
        assert (record.caller, record.parent) == ("alice", kept_starts.PARENT)

    @started
    def test_one_of_a_group_counts_for_it_and_the_last_one_starts_what_waits(
        self, services: Services, redis_client: redis.Redis, file: Path
    ) -> None:
        kept = kept_starts.load(file)
        child, joining = kept_starts.put_back(redis_client, kept, "queued", "joining")
        assert execute(services, work, child, tuple).end == "succeeded"
        record = services.runs.read(joining)
        assert record is not None
        assert (record.status, record.join) == ("queued", kept_starts.GROUP)
        assert record.call is not None
        assert tuple(record.call.group or ()) == (kept_starts.GROUP, 2)

    @started
    def test_an_end_goes_into_the_history_with_its_parent(
        self, redis_client: redis.Redis, archiver: Archiver, history: History, file: Path
    ) -> None:
        [run_id] = kept_starts.put_back(redis_client, kept_starts.load(file), "ended")
        assert archiver.turn() == 1
        past = history.find(run_id)
        assert past is not None
        assert (past.parent, past.status) == (kept_starts.PARENT, "succeeded")

    def test_what_is_written_now_has_the_form_that_is_kept(
        self, runs: Runs, redis_client: redis.Redis, tmp_path: Path
    ) -> None:
        written = kept_starts.write(redis_client, runs, work)
        file = tmp_path / "today.json"
        file.write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n")
        kept = kept_starts.load(kept_starts.FILES[-1])
        assert kept_starts.form(written, SEALER) == kept_starts.form(kept, SEALER), (
            f"What is written of a started run has changed. Keep {file} in {kept_starts.FOLDER}, "
            "under today's date, and raise callboard.runs.format if an older version would get "
            "it wrong."
        )
        versions = {written[state]["record"]["v"] for state in kept_starts.STATES}
        assert versions == {str(START)}


class TestNewer:
    """What a later version wrote is left for it."""

    @pytest.mark.parametrize("state", ["queued", "lapsed"])
    def test_a_run_is_not_claimed_and_not_lost(
        self, services: Services, redis_client: redis.Redis, now: kept_runs.Kept, state: str
    ) -> None:
        run_id = kept_runs.put_back(redis_client, now, state, v=NEWER, seal="unknown here")
        before = redis_client.hgetall(f"callboard:run:{run_id}")
        with capture_logs() as lines:
            assert execute(services, work, run_id, tuple).end is None
            assert execute(services, work, run_id, tuple).end is None
        assert [line["event"] for line in lines] == [TOLD]  # once
        assert redis_client.hgetall(f"callboard:run:{run_id}") == before
        assert services.runs.sweep() == []
        assert redis_client.llen("callboard") == 1  # it wakes whoever comes next

    def test_a_run_does_not_expire_here(
        self, services: Services, redis_client: redis.Redis, now: kept_runs.Kept
    ) -> None:
        run_id = kept_runs.put_back(redis_client, now, "queued", v=NEWER, enqueued=1)
        redis_client.hdel(f"callboard:run:{run_id}", "message")
        assert services.runs.sweep() == []
        assert redis_client.zscore(Keys().open, run_id) is not None

    @pytest.mark.parametrize("change", [{}, {"kwargsrepr": None}, {"callboard": "another tag"}])
    def test_a_message_is_passed_over_and_told(
        self,
        services: Services,
        redis_client: redis.Redis,
        now: kept_runs.Kept,
        change: dict[str, Any],
    ) -> None:
        text = kept_runs.renewed(kept_runs.wakeup_of(now), v=NEWER, **change)
        with capture_logs() as lines:
            assert services.read(text) is None
        [line] = lines
        assert (line["event"], line["version"], line["known"]) == (TOLD, NEWER, FORMAT)
        assert redis_client.hget(Keys().counters, "refused") is None

    def test_an_ended_run_waits_for_a_newer_archiver(
        self,
        services: Services,
        history: History,
        redis_client: redis.Redis,
        now: kept_runs.Kept,
        make_archiver: Callable[..., Archiver],
    ) -> None:
        run_id = kept_runs.put_back(redis_client, now, "ended", v=NEWER)
        ours = make_archiver()
        ours._services = services
        with capture_logs() as lines:
            assert ours.turn() == 0
        assert [line["event"] for line in lines] == [TOLD]
        assert ours._pause == MINE_SECONDS
        redis_client.hset(f"callboard:run:{run_id}", "v", FORMAT)  # as the newer one knows it
        assert make_archiver().turn() == 1  # another's turn comes at once
        assert history.find(run_id) is not None

    def test_whoever_asks_is_told_to_ask_again(
        self, api: Callable[..., FlaskClient], redis_client: redis.Redis, now: kept_runs.Kept,
        make_token: Callable[..., str],
    ) -> None:  # fmt: skip
        run_id = kept_runs.put_back(redis_client, now, "queued", v=NEWER)
        headers = {"Authorization": f"Bearer {make_token('alice')}"}
        response = api().get(f"/api/runs/{run_id}", headers=headers)
        assert response.status_code == 503
        assert f"newer version of Callboard (format {NEWER})" in response.json["error"]
        assert response.headers["Retry-After"]
