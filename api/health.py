"""Probes: alive, and ready for calls."""

from __future__ import annotations

from flask import Blueprint, Response

from api.errors import envelope
from api.services import services
from callboard import threads
from callboard.broker import guarded
from callboard.errors import NotReady

__all__ = ["health"]

health = Blueprint("health", __name__)


@health.get("/healthz")
def alive() -> Response:
    """200 while the process answers at all."""
    return envelope({"success": True, "data": {"status": "alive"}}, 200)


@health.get("/readyz")
def ready() -> Response:
    """200 while calls can be enqueued; 503 while the broker, the key set or a thread is away."""
    if dead := threads.down():
        raise NotReady(f"Not ready: {', '.join(dead)} failed; the log says why")
    services().verifier.require()
    with guarded():
        services().redis.ping()
    return envelope({"success": True, "data": {"status": "ready"}}, 200)
