"""The producer: runs that another program of the application asks for, without HTTP.

A web view, a Celery task or a script is as trusted as the API, because it has the same
``SECRET_KEY``: it says who the caller is. The rules of the action count all the same.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Mapping
from typing import Any

from callboard.connections.redis import connect
from callboard.errors import BadRequest, Forbidden, Unauthorized
from callboard.json_object import MAX_PARAMS_BYTES, json_object
from callboard.registry import Registry, get_registry
from callboard.runs.idempotency import scoped
from callboard.runs.seal import Call, Sealer
from callboard.runs.store import Runs
from callboard.sdk.action import Action
from callboard.settings import Settings, get_settings
from callboard.subject import check_subject

__all__ = ["MAX_PARAMS_BYTES", "Producer", "get_producer"]


class Producer:
    """Accepts the runs of one program; it connects on first use."""

    def __init__(self, settings: Settings, registry: Registry) -> None:
        self._settings = settings
        self._registry = registry
        self._runs = Runs(connect(settings), Sealer(settings.secret_keys), settings.keys)

    def close(self) -> None:
        """Close the connections; the next use opens new ones."""
        self._runs.close()

    def enqueue(
        self,
        action: str,
        params: Any,
        *,
        caller: str | None,
        claims: Mapping[str, Any] | None = None,
        key: str | None = None,
    ) -> str:
        """What `callboard.enqueue` does."""
        subject = _text("caller", caller)
        if subject is None and (claims or key is not None):
            raise BadRequest("claims and key belong to a caller: pass caller=, too")
        found = self._permitted(action, subject)
        call = Call(
            caller=subject,
            claims={**json_object("claims", claims), "sub": subject} if subject else {},
            params=json_object("params", params),
        )
        found.validate(call.params)
        under = _text("key", key)
        return self._runs.accept(
            str(uuid.uuid4()),
            found,
            call,
            idempotency=scoped(under, subject, found.name, call.params)
            if under and subject
            else None,
            **self._settings.of_accepting,
        ).run_id

    def _permitted(self, name: str, caller: str | None) -> Action:
        try:
            return self._registry.startable(name, caller, self._settings.owner_user_id)
        except Unauthorized:
            raise Forbidden(
                f"Action {name!r} is for callers who are known: pass caller=, or declare it "
                "anonymous=True"
            ) from None


def _text(what: str, value: object) -> str | None:
    """A name of 1..255 characters, or None; raises `BadRequest`."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise BadRequest(f"{what} must be a text, not {type(value).__name__}")
    try:
        value.encode()
        check_subject(value, what)
    except UnicodeEncodeError:
        raise BadRequest(f"{what} holds half of a surrogate pair, which is no text") from None
    except ValueError as error:
        raise BadRequest(str(error)) from None
    return value


class _Process:
    """What this process has: nothing until it is asked for, and nothing after a fork."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """A child must not share its parent's connection, nor a lock that a thread there held."""
        self.lock = threading.Lock()
        self.producer: Producer | None = None


_process = _Process()
os.register_at_fork(after_in_child=_process.forget)


def get_producer() -> Producer:
    """The producer of this process, from the environment.

    Raises `ConfigurationError`: then the next call tries again.
    """
    with _process.lock:
        if _process.producer is None:
            _process.producer = Producer(get_settings(), get_registry())
        return _process.producer
