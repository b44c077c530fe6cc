"""Requests to raw actions, from the API to the handler: the receivers of docs/webhooks.md."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from doc_pages import ROOT, write_package
from flask.testing import FlaskClient

from api.app import create_app
from api.call.received import MAX_HEADERS_BYTES
from callboard import ActionContext, ActionResult, action, ok
from callboard.errors import ConfigurationError
from callboard.registry import Registry, discover
from callboard.runs.outcome import Outcome
from callboard.settings import Settings
from callboard.testing.inline import InlineCall
from worker.runs.execution import execute
from worker.services import Services

PAYMENT, REPOSITORY = "whsec_payments", "repository-secret"
EVENT = json.dumps({"id": "evt_1", "type": "charge.succeeded", "text": "Zoë"}).encode()
PUSH = b'{"repository": {"full_name": "acme/\xc3\xa9tude"},  "ref": "main"}'
NOT_UTF8 = bytes(range(256))


@action(anonymous=True, raw=True)
def raw(ctx: ActionContext) -> ActionResult:
    request = ctx.request
    return ok(
        {
            "headers": dict(request.headers),
            "body": hashlib.sha256(request.body).hexdigest(),
            "params": dict(ctx.params),
            "age": time.time() - request.received_at,
            "caller": ctx.user_id,
        }
    )


@action
def plain(ctx: ActionContext) -> ActionResult:
    return ok(ctx.request.body.decode())


@pytest.fixture
def as_user(make_token: Callable[..., str]) -> Callable[[str], dict[str, str]]:
    """The header of a caller's."""
    return lambda sub: {"Authorization": f"Bearer {make_token(sub=sub)}"}


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.syspath_prepend(tmp_path)
    page = discover(write_package(ROOT / "docs" / "webhooks.md", tmp_path))
    return Registry(actions={**page.actions, "raw": raw, "plain": plain})


class App:
    """The API and a worker: what the API accepts, the worker runs at once."""

    def __init__(self, settings: Settings, registry: Registry) -> None:
        self.flask = create_app(settings, registry)
        self.client: FlaskClient = self.flask.test_client()
        self.services = Services(settings, registry)

    def send(self, name: str, body: bytes = b"", **options: Any) -> Any:
        """The API's response: 202."""
        headers = {"Prefer": "respond-async", **options.pop("headers", {})}
        return self.client.post(f"/api/actions/{name}", data=body, headers=headers, **options)

    def outcome(self, name: str, run_id: str) -> Outcome:
        execute(self.services, self.services.registry.get(name), run_id, tuple)
        record = self.services.runs.read(run_id)
        assert record is not None
        assert record.outcome is not None
        return record.outcome

    def handed(self, name: str, body: bytes = b"", **options: Any) -> dict[str, Any]:
        """What the handler of a call says."""
        accepted = self.send(name, body, **options)
        assert accepted.status_code == 202, accepted.get_data()
        return self.outcome(name, accepted.headers["Run-Id"]).envelope()

    def close(self) -> None:
        self.services.runs.close()
        self.services.store.close()
        self.flask.extensions["callboard"].close()


@pytest.fixture
def app(
    variables: dict[str, str], registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> Iterator[App]:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PAYMENT_SECRET", PAYMENT)
    app = App(Settings(), registry)
    yield app
    app.close()


def signed(body: bytes = EVENT, *, secret: str = PAYMENT, age: float = 0, also: str = "") -> str:
    """A `Stripe-Signature`, made as its documentation says."""
    sent_at = str(int(time.time() - age))
    text = sent_at.encode() + b"." + body
    digest = hmac.new(secret.encode(), text, hashlib.sha256).hexdigest()
    return f"t={sent_at},{also}v1={digest},v0=old"


class TestTheRequest:
    @pytest.mark.parametrize(
        ("body", "kind"),
        [
            (b"", None),
            (b"not json", "application/json"),
            (NOT_UTF8, "application/octet-stream"),
            (b"a=1&b=%20", "application/x-www-form-urlencoded"),
            (b"x" * 1_048_576, "text/plain"),
        ],
    )
    def test_it_is_handed_over_as_it_came(self, app: App, body: bytes, kind: str | None) -> None:
        found = app.handed("raw", body, content_type=kind)["data"]
        assert found["body"] == hashlib.sha256(body).hexdigest()
        assert found["headers"].get("content-type") == kind
        assert (found["params"], found["caller"]) == ({}, None)
        assert 0 <= found["age"] < 60

    def test_credentials_stay_out_of_it(
        self, app: App, as_user: Callable[[str], dict[str, str]]
    ) -> None:
        given = {**as_user("alice"), "Cookie": "session=1", "Proxy-Authorization": "Basic x"}
        found = app.handed("raw", headers={**given, "X-Signature": "Ab1", "x-Lower": "é"})["data"]
        assert found["headers"]["x-signature"] == "Ab1"
        assert found["headers"]["x-lower"] == "é"
        assert not found["headers"].keys() & {"authorization", "cookie", "proxy-authorization"}
        assert found["caller"] == "alice"

    def test_it_is_sealed(self, app: App, redis_client: redis.Redis) -> None:
        sent = app.send("raw", b"a-secret-body", headers={"X-Signature": "a-secret-header"})
        values = redis_client.hgetall(app.services.keys.run(sent.headers["Run-Id"]))
        assert values
        assert not any(b"a-secret" in value for value in values.values())

    def test_it_is_bounded(self, app: App) -> None:
        assert app.send("raw", b"x" * 1_048_577).status_code == 413
        large = app.send("raw", headers={"X-Large": "x" * MAX_HEADERS_BYTES})
        assert (large.status_code, large.get_json()["code"]) == (431, "too_large")
        fitting = {"X-Large": "x" * (MAX_HEADERS_BYTES - 500)}
        assert app.send("raw", headers=fitting).status_code == 202


class TestIdempotency:
    def test_a_callers_key_holds_for_the_same_body(
        self, app: App, as_user: Callable[[str], dict[str, str]]
    ) -> None:
        keyed = {**as_user("alice"), "Idempotency-Key": "k"}
        first, again, other = (app.send("raw", body, headers=keyed) for body in (b"1", b"1", b"2"))
        assert first.headers["Run-Id"] == again.headers["Run-Id"]
        assert (other.status_code, other.get_json()["code"]) == (422, "key_reused")

    def test_a_senders_key_is_its_own(self, app: App) -> None:
        found = app.handed("raw", headers={"Idempotency-Key": "evt_1"})["data"]
        assert found["headers"]["idempotency-key"] == "evt_1"


class TestAPaymentService:
    def test_what_it_signed_is_kept_once(self, app: App) -> None:
        for header in (signed(), signed(also="v1=5f5f,")):
            headers = {"Stripe-Signature": header}
            kept = app.handed("paymentEvent", EVENT, headers=headers, content_type="text/json")
            assert kept == {"success": True, "data": {"recordId": "evt_1"}}

    @pytest.mark.parametrize(
        ("header", "body"),
        [
            (lambda: "", EVENT),
            (lambda: signed(secret="another"), EVENT),
            (signed, EVENT.replace(b"evt_1", b"evt_2")),
            (signed, EVENT + b" "),
            (lambda: signed(age=3600), EVENT),
            (lambda: signed(age=-3600), EVENT),
            (lambda: signed().replace("v1=", "v2="), EVENT),
            (lambda: "t=,v1=", EVENT),
            (lambda: "t=²,v1=é", EVENT),
            (lambda: ",".join(["t=1", *["v1=0"] * 500]), EVENT),
        ],
    )
    def test_what_it_did_not_is_refused(
        self, app: App, header: Callable[[], str], body: bytes
    ) -> None:
        headers = {"Stripe-Signature": told} if (told := header()) else {}
        found = app.handed("paymentEvent", body, headers=headers)
        assert (found["success"], found["code"]) == (False, "bad_signature")

    def test_its_age_counts_until_it_was_received(
        self, app: App, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sent = app.send("paymentEvent", EVENT, headers={"Stripe-Signature": signed()})
        later = time.time() + 3600
        monkeypatch.setattr(time, "time", lambda: later)
        assert app.outcome("paymentEvent", sent.headers["Run-Id"]).envelope()["success"]

    def test_without_a_request_no_signature_fits(
        self, app: App, as_user: Callable[[str], dict[str, str]]
    ) -> None:
        calls = {"calls": [{"action": "paymentEvent", "params": {"id": "evt_1"}}]}
        answer = app.client.post("/api/batch", json=calls, headers=as_user("alice"))
        run_id = answer.get_json()["data"][0]["runId"]
        assert app.outcome("paymentEvent", run_id).envelope()["code"] == "bad_signature"


class TestACodeHost:
    """An async handler: through `callboard.testing`."""

    @pytest.fixture
    def call(self, call: InlineCall, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Any:
        monkeypatch.setenv("REPOSITORY_SECRET", REPOSITORY)
        return replace(call, registry=registry)

    def headers(self, secret: str = REPOSITORY) -> dict[str, str]:
        digest = hmac.new(secret.encode(), PUSH, hashlib.sha256).hexdigest()
        return {
            "X-Hub-Signature-256": f"sha256={digest}",
            "X-GitHub-Event": "push",
            "X-GitHub-Delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
        }

    def test_what_it_signed_is_kept(self, call: InlineCall) -> None:
        kept = call("repositoryEvent", as_user=None, body=PUSH, headers=self.headers())
        record = call.tools.get("pushes", kept.unwrap()["recordId"]).unwrap()["record"]
        assert record["data"] == {"event": "push", "repository": "acme/étude"}

    @pytest.mark.parametrize("body", [PUSH + b"\n", b"", b"{"])
    def test_another_body_is_refused(self, call: InlineCall, body: bytes) -> None:
        refused = call("repositoryEvent", as_user=None, body=body, headers=self.headers())
        assert refused.code == "bad_signature"

    def test_so_is_another_key(self, call: InlineCall) -> None:
        headers = self.headers("another")
        assert call("repositoryEvent", as_user=None, body=PUSH, headers=headers).code == (
            "bad_signature"
        )

    def test_a_request_is_for_raw_actions(self, call: InlineCall) -> None:
        with pytest.raises(ValueError, match="'plain' is not declared with raw=True"):
            call("plain", body=b"")
        with pytest.raises(ConfigurationError, match=r"'plain' has no ctx\.request.*raw=True"):
            call("plain")
