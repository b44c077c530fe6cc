"""Signals: what a run keeps of them, and what wakes it."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import redis
import structlog
from ended_runs import SEALER, finish, open_to_all, whole, work
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from api.runs import signals as views
from api.services import Services
from callboard.connections.keys import Keys
from callboard.errors import NewerFormat, SealError
from callboard.runs import signals
from callboard.runs.format import FORMAT
from callboard.runs.outbox import Outbox, Row
from callboard.runs.seal import Call
from callboard.runs.signal_url import SignalUrls
from callboard.runs.signals import open_signal, seal_signal
from callboard.runs.start import Start
from callboard.runs.store import Runs
from callboard.sdk.action import Action

KEYS = Keys()
QUEUE = KEYS.queue("callboard")
Accept = Callable[..., str]


@pytest.fixture
def accept(runs: Runs) -> Accept:
    """Queue a run: ``accept(work, caller="alice")``."""

    def accept(action: Action = work, caller: str | None = "alice") -> str:
        run_id = str(uuid4())
        runs.accept(run_id, action, Call(caller=caller), max_queue=100, result_ttl=60)
        return run_id

    return accept


@pytest.fixture
def send(runs: Runs) -> Callable[..., str]:
    """``send(run_id, "approve", value)``: what came of it."""

    def send(run_id: str, name: str = "approve", value: Any = True) -> str:
        return runs.signal(run_id, "work", name, value)

    return send


def park(client: redis.Redis, run_id: str, **waits: Any) -> None:
    """As a run that waits is kept."""
    client.hset(KEYS.run(run_id), mapping={"status": "waiting", "waiting": json.dumps(waits)})
    client.zrem(KEYS.open, run_id)
    client.zadd(KEYS.due, {run_id: 10**14})
    client.delete(QUEUE)


def kept(client: redis.Redis, run_id: str, name: str = "approve") -> Any:
    sealed = client.hget(KEYS.run(run_id), f"signal:{name}")
    assert isinstance(sealed, bytes)
    return open_signal(SEALER, run_id, "work", name, sealed)


@pytest.mark.parametrize("value", [None, True, 1, "text", [], {"by": "bob", "deep": [[1]]}])
def test_the_first_one_counts(
    accept: Accept, send: Callable[..., str], redis_client: redis.Redis, value: Any
) -> None:
    run_id = accept()
    assert send(run_id, value=value) == "kept"
    assert send(run_id, value="later") == "known"
    assert kept(redis_client, run_id) == value
    assert send(run_id, "refuse", "other") == "kept"
    assert (kept(redis_client, run_id), kept(redis_client, run_id, "refuse")) == (value, "other")


def test_of_many_at_once_one_counts(
    accept: Accept, send: Callable[..., str], redis_client: redis.Redis
) -> None:
    run_id = accept()
    park(redis_client, run_id, kind="signal", name="approve")
    with ThreadPoolExecutor(8) as pool:
        came = list(pool.map(lambda n: (n, send(run_id, value=n)), range(40)))
    [first] = [n for n, what in came if what == "kept"]
    assert {what for n, what in came if n != first} == {"known"}
    assert kept(redis_client, run_id) == first
    assert redis_client.llen(QUEUE) == 1


def test_what_waits_for_it_is_queued_at_once(
    accept: Accept, send: Callable[..., str], redis_client: redis.Redis
) -> None:
    run_id = accept()
    park(redis_client, run_id, kind="signal", name="approve")
    assert send(run_id, "other") == "kept"
    assert redis_client.llen(QUEUE) == 0
    assert send(run_id) == "kept"
    assert redis_client.llen(QUEUE) == 1
    assert redis_client.hget(KEYS.run(run_id), "status") == b"queued"
    assert redis_client.zscore(KEYS.due, run_id) is None
    assert redis_client.zscore(KEYS.open, run_id) is not None
    assert send(run_id) == "known"
    assert redis_client.llen(QUEUE) == 1


@pytest.mark.parametrize("waits", ['{"kind": "time", "name": "approve"}', "no JSON", "[]", ""])
def test_what_waits_for_something_else_keeps_it(
    accept: Accept, send: Callable[..., str], redis_client: redis.Redis, waits: str
) -> None:
    run_id = accept()
    park(redis_client, run_id)
    redis_client.hset(KEYS.run(run_id), "waiting", waits)
    assert send(run_id) == "kept"
    assert redis_client.hget(KEYS.run(run_id), "status") == b"waiting"
    assert redis_client.llen(QUEUE) == 0


def test_what_has_ended_or_never_was_takes_none(
    accept: Accept, send: Callable[..., str], runs: Runs, redis_client: redis.Redis
) -> None:
    run_id = accept()
    finish(runs, run_id)
    assert send(run_id) == "ended"
    assert redis_client.hexists(KEYS.run(run_id), "signal:approve") is False
    assert send(str(uuid4())) == "ended"


def test_a_run_keeps_a_bounded_number_of_them(
    accept: Accept, send: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("callboard.runs.commands.MAX_SIGNALS", 2)
    run_id = accept()
    assert [send(run_id, name) for name in ("a", "b", "c", "a")] == [
        "kept",
        "kept",
        "full",
        "known",
    ]


def test_a_run_keeps_a_bounded_size_of_them(accept: Accept, send: Callable[..., str]) -> None:
    run_id = accept()
    half = "x" * (signals.MAX_SIGNALS_BYTES // 2)
    assert [send(run_id, name, half) for name in ("a", "b")] == ["kept", "full"]


def test_who_looks_at_a_run_does_not_carry_its_signals_along(
    accept: Accept, send: Callable[..., str], runs: Runs, redis_client: redis.Redis
) -> None:
    def sent() -> int:
        return int(redis_client.info("stats")["total_net_output_bytes"])

    run_id = accept()
    send(run_id, value="x" * 2**20)
    before = sent()
    assert runs.read(run_id) is not None
    assert sent() - before < 2**20


def test_a_record_of_a_newer_version_is_left(
    accept: Accept, send: Callable[..., str], redis_client: redis.Redis
) -> None:
    run_id = accept()
    redis_client.hset(KEYS.run(run_id), "v", FORMAT + 1)
    with pytest.raises(NewerFormat):
        send(run_id)


def test_nobody_can_make_one_signal_into_another(accept: Accept) -> None:
    run_id = accept()
    sealed = seal_signal(SEALER, run_id, "work", "refuse", True)
    assert open_signal(SEALER, run_id, "work", "refuse", sealed) is True
    for other in ({"name": "approve"}, {"run_id": str(uuid4())}, {"action": "strict"}):
        where = {"run_id": run_id, "action": "work", "name": "refuse", **other}
        with pytest.raises(SealError):
            open_signal(SEALER, **where, sealed=sealed)


@pytest.fixture
def post(client: FlaskClient, make_token: Callable[..., str]) -> Callable[..., TestResponse]:
    """``post(run_id, "approve", {"by": "bob"}, sub="alice")``: the response."""

    def post(
        run_id: str, name: str = "approve", value: Any = True, sub: str | None = "alice",
        **options: Any,
    ) -> TestResponse:  # fmt: skip
        headers = {"Authorization": f"Bearer {make_token(sub)}"} if sub else {}
        given = {"json": value, "headers": headers, **options}
        return client.post(f"/api/runs/{run_id}/signals/{name}", **given)

    return post


class TestWithAToken:
    @pytest.mark.parametrize("value", [None, 0, "yes", {"by": "bob"}, [1, [2]]])
    def test_the_caller_and_the_owner_send_any_json_and_the_first_counts(
        self, post: Any, accept: Any, redis_client: redis.Redis, value: Any
    ) -> None:
        run_id = accept()
        first, second = post(run_id, value=value), post(run_id, value="later", sub="owner")
        assert (first.status_code, first.json["data"]) == (200, {"accepted": True})
        assert (second.status_code, second.json["data"]) == (200, {"accepted": False})
        assert kept(redis_client, run_id) == value
        assert post(run_id, "refuse", sub="owner").json["data"] == {"accepted": True}

    def test_no_body_is_null(self, post: Any, accept: Any, redis_client: redis.Redis) -> None:
        run_id = accept()
        assert post(run_id, json=None, data=b"").status_code == 200
        assert kept(redis_client, run_id) is None

    def test_what_waits_is_queued(self, post: Any, accept: Any, redis_client: redis.Redis) -> None:
        run_id = accept()
        park(redis_client, run_id, kind="signal", name="approve")
        post(run_id)
        assert redis_client.llen(QUEUE) == 1

    def test_it_is_nobody_elses(self, post: Any, accept: Any) -> None:
        run_id = accept()
        assert post(run_id, sub="bob").status_code == 404
        nobody = post(run_id, sub=None)
        assert (nobody.status_code, nobody.headers["WWW-Authenticate"]) == (401, "Bearer")

    def test_an_anonymous_run_is_the_owners_to_tell(self, post: Any, accept: Any) -> None:
        run_id = accept(open_to_all, None)
        assert post(run_id, sub=None).status_code == 401
        assert post(run_id, sub="bob").status_code == 404
        assert post(run_id, sub="owner").json["data"] == {"accepted": True}

    def test_nothing_waits_in_what_has_ended_or_in_a_transaction(
        self, post: Any, accept: Any, runs: Runs
    ) -> None:
        run_id = accept()
        finish(runs, run_id)
        ended = post(run_id)
        assert (ended.status_code, "is succeeded" in ended.json["error"]) == (404, True)
        refused = post(accept(whole))
        assert (refused.status_code, "transaction=True" in refused.json["error"]) == (404, True)
        assert post(str(uuid4())).status_code == 404
        assert post("no-run").status_code == 404

    def test_what_ends_meanwhile_is_told(
        self, post: Any, accept: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Runs, "signal", lambda *_: "ended")
        assert post(accept()).status_code == 404
        monkeypatch.setattr(Runs, "signal", lambda *_: "full")
        assert post(accept()).status_code == 409

    @pytest.mark.parametrize("name", ["a%20b", "-a", "a" * 65, ".."])
    def test_a_name_that_is_none_is_told(self, post: Any, accept: Any, name: str) -> None:
        assert post(accept(), name).status_code == 404

    def test_a_body_that_is_none_is_refused(self, post: Any, accept: Any) -> None:
        run_id = accept()
        json_type = {"json": None, "content_type": "application/json"}
        assert post(run_id, data=b"{", **json_type).status_code == 400
        assert post(run_id, data=b"NaN", **json_type).status_code == 400
        assert post(run_id, data=b"[" * 65 + b"]" * 65, **json_type).status_code == 400
        assert post(run_id, data=b'"' + b"x" * 2**20 + b'"', **json_type).status_code == 413
        assert post(run_id, json=None, data={"a": "b"}).status_code == 415  # a form
        assert post(run_id).json["data"] == {"accepted": True}  # none of them counted

    def test_it_is_counted_by_the_rate_limit(
        self, api: Callable[..., FlaskClient], make_token: Callable[..., str], accept: Any
    ) -> None:
        client = api(CALLBOARD_RATE_LIMIT="1/hour")
        given = {"json": True, "headers": {"Authorization": f"Bearer {make_token()}"}}
        path = f"/api/runs/{accept()}/signals/approve"
        assert [client.post(path, **given).status_code for _ in range(2)] == [200, 429]

    def test_a_run_that_the_outbox_alone_has_takes_it(
        self, post: Any, services: Services, redis_client: redis.Redis, runs: Runs
    ) -> None:
        due = datetime.now(UTC) + timedelta(hours=2)
        call = Call(caller="alice").due_in(7200)
        start = Start(run_id=str(uuid4()), action=work, call=call)
        Outbox(services.store.database, SEALER).put([Row(start=start, due=due)])
        assert post(start.run_id).json["data"] == {"accepted": True}
        assert post(start.run_id).json["data"] == {"accepted": False}
        assert kept(redis_client, start.run_id) is True
        record = runs.read(start.run_id)
        assert record is not None
        assert record.status == "waiting"
        assert record.due is not None
        assert abs(record.due / 1000 - due.timestamp()) < 60


BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
FORM = "application/x-www-form-urlencoded"


class TestSigned:
    @pytest.fixture
    def link(self, accept: Any) -> Callable[..., str]:
        """The path and query of a signed URL: ``link(run_id)``."""
        urls = SignalUrls(("k" * 40,), "http://callboard.test")

        def link(run_id: str = "", name: str = "approve") -> str:
            url = urls.url(run_id or accept(), name)
            return url.removeprefix("http://callboard.test")

        return link

    def test_a_webhook_needs_no_token_and_a_header_of_its_own_has_no_say(
        self, client: FlaskClient, accept: Any, link: Any, redis_client: redis.Redis
    ) -> None:
        run_id = accept()
        headers = {"Authorization": "Basic abc"}
        response = client.post(link(run_id), json={"paid": 1}, headers=headers)
        assert (response.status_code, response.json["data"]) == (200, {"accepted": True})
        assert client.post(link(run_id), json=2).json["data"] == {"accepted": False}
        assert kept(redis_client, run_id) == {"paid": 1}

    @pytest.mark.parametrize(
        ("body", "value"),
        [
            ("", True),
            ("a=1&b=%C3%A4&c=", {"a": "1", "b": "ä", "c": ""}),
            ("a=1&a=2", {"a": ["1", "2"]}),
        ],
    )
    def test_a_form_is_an_object_and_an_empty_one_is_true(
        self, client: FlaskClient, accept: Any, link: Any, redis_client: redis.Redis, body: str,
        value: Any,
    ) -> None:  # fmt: skip
        run_id = accept()
        response = client.post(link(run_id), data=body, content_type=FORM, headers=BROWSER)
        assert (response.status_code, response.mimetype) == (200, "text/html")
        assert kept(redis_client, run_id) == value
        again = client.post(link(run_id), data=body, content_type=FORM, headers=BROWSER)
        assert "Nothing has changed" in again.text

    @pytest.mark.parametrize("body", [b"a=%ff", b"\xff=1", b"&".join([b"a=1"] * 1001)])
    def test_a_form_that_is_none_is_refused(
        self, client: FlaskClient, link: Any, body: bytes
    ) -> None:
        assert client.post(link(), data=body, content_type=FORM).status_code == 400

    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    def test_looking_at_it_sends_nothing(
        self, client: FlaskClient, accept: Any, link: Any, redis_client: redis.Redis, method: str
    ) -> None:
        run_id = accept()
        for _ in range(3):
            response = client.open(link(run_id), method=method)
            assert response.status_code == 200
        assert redis_client.hexists(KEYS.run(run_id), "signal:approve") is False

    def test_the_page_is_fenced_in_and_tells_nobody_its_address(
        self, client: FlaskClient, link: Any
    ) -> None:
        path = link()
        page = client.get(path)
        assert '<form method="post"' in page.text
        assert path.partition("signature=")[2] not in page.text
        assert page.headers["Cache-Control"] == "no-store"
        assert page.headers["Referrer-Policy"] == "no-referrer"
        policy = page.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "form-action 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "script-src" not in policy
        with client.get("/signals/signal.css") as style:
            assert style.status_code == 200

    def test_a_bad_link_leads_nowhere_whatever_is_wrong_with_it(
        self, client: FlaskClient, accept: Any, link: Any, runs: Runs, make_token: Any
    ) -> None:
        run_id, other, ended = accept(), accept(), accept()
        finish(runs, ended)
        good = link(run_id)
        path, _, signature = good.partition("?signature=")
        bad = [
            path,
            f"{path}?signature=",
            f"{path}?signature={signature[:-1]}",
            f"{path}?signature={signature}0",
            f"{path}?signature=ä",
            link(run_id, "refuse").replace("refuse", "approve"),
            link(other).replace(other, run_id),
            link(ended),
            link(str(uuid4())),
        ]
        pages = [client.get(one) for one in bad]
        assert {page.status_code for page in pages} == {404}
        assert len({page.text for page in pages}) == 1
        headers = {"Authorization": f"Bearer {make_token('alice')}"}
        for one in bad[1:]:
            assert client.post(one, headers=headers).status_code == 404  # its token has no say
            shown = client.post(one, headers=BROWSER)
            assert (shown.status_code, shown.text) == (404, pages[0].text)
        assert client.post(good).json["data"] == {"accepted": True}

    def test_pages_tell_refusals(
        self, api: Callable[..., FlaskClient], accept: Any, link: Any
    ) -> None:
        path = link()
        large = api().post(path, data="x" * (2**20 + 1), content_type=FORM, headers=BROWSER)
        assert (large.status_code, large.mimetype) == (413, "text/html")
        limited = api(CALLBOARD_RATE_LIMIT="1/hour")
        assert [limited.get(path).status_code for _ in range(2)] == [200, 429]

    def test_no_log_has_the_signature(
        self,
        capfd: pytest.CaptureFixture[str],  # before the client, whose logs it reads
        client: FlaskClient,
        link: Any,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        # the module's own may be bound to what was configured before
        monkeypatch.setattr(views, "_log", structlog.get_logger())
        path = link()
        client.get(path)
        client.post(path, json={"secret": "canary-data"})
        client.post(path[:-1], json=1)
        told = "".join(capfd.readouterr())
        assert '"event": "signal"' in told
        assert path.partition("signature=")[2][:16] not in told
        assert "canary-data" not in told
