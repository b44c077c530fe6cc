"""What a process that cannot do its work says of itself to the probes."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from flask.testing import FlaskClient

from callboard.processes import threads
from callboard.processes.threads import supervise

Eventually = Callable[..., None]


def test_an_api_with_a_dead_thread_is_not_ready(
    api: Callable[..., FlaskClient], eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "SETTLED_SECONDS", 0.5)
    client, failed, stopped = api(), threading.Event(), threading.Event()

    def run() -> None:
        if not failed.is_set():
            failed.set()
            raise KeyError("what")
        stopped.wait()

    assert client.get("/readyz").status_code == 200
    supervise("fragile", run, stopped)
    eventually(failed.is_set)
    response = client.get("/readyz")
    assert (response.status_code, response.headers["Retry-After"]) == (503, "2")
    assert "fragile" in response.json["error"]
    assert client.get("/healthz").status_code == 200  # a restart would be no help
    eventually(lambda: client.get("/readyz").status_code == 200)
    stopped.set()
