"""The recipes of docs/hooks.md: webhooks, and Sentry's SDK, against a receiver here."""

from __future__ import annotations

import gzip
import hashlib
import hmac
import importlib.util
import json
import os
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from doc_pages import ROOT, python_blocks, write_package
from flask import Flask, request
from local_http import served

from callboard import ActionContext, ActionResult, AsyncActionContext, action, ok
from callboard.errors import UnknownAction
from callboard.registry import Registry, discover
from callboard.sdk.hooks import Hook, Hooks
from callboard.testing.inline import InlineCall

PAGE = ROOT / "docs" / "hooks.md"


@dataclass
class Receiver:
    """What was posted to it."""

    url: str = ""
    refuse: int = 0  # so many come back as 503
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    def receive(self, path: str) -> tuple[str, int]:
        """Any path."""
        self.got.append((dict(request.headers), request.get_data()))
        self.refuse -= 1
        return ("{}", 503) if self.refuse >= 0 else ("{}", 200)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver, app = Receiver(), Flask("receiver")
    app.add_url_rule("/<path:path>", view_func=receiver.receive, methods=["POST"])
    with served(app) as url:
        receiver.url = url
        yield receiver


def test_a_webhook_is_posted_signed_and_again_until_it_is_taken(
    call: InlineCall, receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEBHOOK_URL", f"{receiver.url}/webhook")
    monkeypatch.setenv("WEBHOOK_SECRET", "of the receiver's and ours")
    monkeypatch.syspath_prepend(tmp_path)
    calls = replace(call, registry=discover(write_package(PAGE, tmp_path)))
    placed = calls("placeOrder", {"items": ["a book"]}).unwrap()
    run_id = calls.started[0]["runId"]
    receiver.refuse = 2
    assert calls.run_started() == [ok({"status": 200})]
    assert len(receiver.got) == 3
    for headers, body in receiver.got:
        assert headers["Webhook-Id"] == run_id
        assert json.loads(body) == {"type": "order.placed", "data": placed}
        signed = b".".join([run_id.encode(), headers["Webhook-Timestamp"].encode(), body])
        digest = hmac.digest(b"of the receiver's and ours", signed, hashlib.sha256)
        assert b64decode(headers["Webhook-Signature"].removeprefix("v1,")) == digest
    with pytest.raises(UnknownAction):
        calls("sendWebhook", {"event": "forged", "data": 1})


@action
def plain(ctx: ActionContext) -> ActionResult:
    card, token = ctx.params["card"], ctx.caller_jwt
    raise LookupError(f"nothing found, in {len(card + str(token)) * 0} shelves")


@action(name="async")
async def waits(ctx: AsyncActionContext) -> ActionResult:
    card, token = ctx.params["card"], ctx.caller_jwt
    raise LookupError(f"nothing found, in {len(card + str(token)) * 0} shelves")


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_an_exception_arrives_at_sentry_without_params_or_token(
    call: InlineCall, receiver: Receiver, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if importlib.util.find_spec("sentry_sdk") is None and not os.environ.get("CI"):
        pytest.skip("sentry-sdk is not installed: make install")
    monkeypatch.setenv("SENTRY_DSN", receiver.url.replace("//", "//key@") + "/1")
    names: dict[str, Any] = {}
    block = next(one for one in python_blocks(PAGE) if "sentry_sdk" in one)
    exec(compile(block, "hooks.py", "exec", dont_inherit=True), names)  # noqa: S102 - our own page
    hooks = Hooks.of(value for value in names.values() if isinstance(value, Hook))
    actions = {"plain": plain, "async": waits}
    calls = replace(call, registry=Registry(actions=actions, hooks=hooks))
    params = {"card": "4111-1111-1111-1111"}
    with pytest.raises(LookupError):
        calls(kind, params)
    names["sentry_sdk"].flush(timeout=60)
    sent = [line for _, body in receiver.got for line in _text(body).splitlines()]
    events = [event for line in sent if "exception" in (event := json.loads(line))]
    assert len(events) == 1
    event = events[0]
    assert event["tags"]["action"] == kind
    assert event["user"] == {"id": "alice"}
    assert len(event["tags"]["run_id"]) == 36
    assert event["exception"]["values"][-1]["value"] == "nothing found, in 0 shelves"
    frames = event["exception"]["values"][-1]["stacktrace"]["frames"]
    assert frames[-1]["function"] in ("plain", "waits")
    everything = "\n".join(sent)
    assert params["card"] not in everything
    assert "eyJ" not in everything  # as each JWT begins


def _text(body: bytes) -> str:
    return (gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body).decode()
