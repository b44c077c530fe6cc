"""The Celery message that wakes a worker for a run.

It is written in Celery's task message protocol, version 2, inside the envelope of kombu's
Redis transport (both are documented by Celery for clients in other languages), because the
record and the message must reach Redis in one script; Celery's own publish path cannot do
that and costs 0.6 ms. A test compares it with what the installed Celery writes.

The message carries no content: the run id, the action, and a tag under the application's key. Of
the protocol's headers it has those that say something; a worker adds the rest. Header ``v`` is the
version of all this (`callboard.runs.format`).
"""

from __future__ import annotations

import base64
import json
import re
from functools import lru_cache
from typing import Any, NamedTuple

from pydantic_core import from_json

from callboard.runs.format import PLAIN, newer

__all__ = [
    "BODY",
    "SIGNATURE_HEADER",
    "Newer",
    "Wakeup",
    "complete",
    "compose",
    "headers",
    "read",
    "write",
]

SIGNATURE_HEADER, VERSION_HEADER = "callboard", "v"
MAX_BYTES = 256 * 1024  # of a message: what it displays are a model's field names

#: No arguments, no callbacks, no chain, no chord.
BODY = b'[[], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'
_BODY = base64.b64encode(BODY).decode()


class Newer(Exception):
    """The message is of a version that is not known here; carries which."""

    def __init__(self, version: int) -> None:
        super().__init__(version)
        self.version = version


class Wakeup(NamedTuple):
    """What a message says, and what the tag in `SIGNATURE_HEADER` covers."""

    task: str
    run_id: str
    display: str  # what Flower shows as the task's kwargs


def headers(wakeup: Wakeup, tag: str) -> dict[str, Any]:
    """The headers of the message, as a worker completes them for Celery.

    Time limits, retries, callbacks and expiry say nothing on purpose: they come from the registry
    and the run record.
    """
    return {
        **_said(wakeup, tag),
        "lang": "py",
        "root_id": wakeup.run_id,
        "parent_id": None,
        "group": None,
        "retries": 0,
        "timelimit": [None, None],
        "eta": None,
        "expires": None,
        "argsrepr": "()",
        "ignore_result": True,
    }


def _said(wakeup: Wakeup, tag: str) -> dict[str, Any]:
    return {
        "task": wakeup.task,
        "id": wakeup.run_id,
        "kwargsrepr": wakeup.display,
        SIGNATURE_HEADER: tag,
        VERSION_HEADER: PLAIN,
    }


def write(queue: str, wakeup: Wakeup, tag: str) -> str:
    """The message, as kombu's Redis transport keeps it in a list.

    Without the headers that say nothing: each message is kept twice and read once.
    """
    return _enveloped(queue, wakeup, _said(wakeup, tag))


def complete(queue: str, wakeup: Wakeup, tag: str) -> str:
    """`write`, with all headers that Celery looks for."""
    return _enveloped(queue, wakeup, headers(wakeup, tag))


def _enveloped(queue: str, wakeup: Wakeup, fields: dict[str, Any]) -> str:
    envelope = {
        "body": _BODY,
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": fields,
        "properties": {
            "delivery_info": {"exchange": "", "routing_key": queue},
            "body_encoding": "base64",
            "delivery_tag": wakeup.run_id,
        },
    }
    return json.dumps(envelope, separators=(",", ":"))


def compose(queue: str, wakeup: Wakeup, tag: str) -> str:
    """`write`, but all that is the same for each run of a task is written once."""
    texts = {_RUN_ID: wakeup.run_id, _DISPLAY: _quoted(wakeup.display)[1:-1], _TAG: tag}
    return "".join([texts.get(piece, piece) for piece in _pieces(queue, wakeup.task)])


_RUN_ID, _DISPLAY, _TAG = "<run id>", "<display>", "<tag>"
_quoted = json.JSONEncoder().encode


@lru_cache
def _pieces(queue: str, task: str) -> list[str]:
    """The text of the message, cut where run id, display and tag stand."""
    text = write(queue, Wakeup(task, _RUN_ID, _DISPLAY), _TAG)
    return re.split(f"({_RUN_ID}|{_DISPLAY}|{_TAG})", text)


def read(text: bytes) -> tuple[Wakeup, object] | None:
    """What the message says, and its tag, which may be anything; None if it is not like ours.

    Raises `Newer` where it says that it is of a later version, whatever else it says.
    """
    if len(text) > MAX_BYTES:
        return None
    try:
        envelope = from_json(text)
        fields = envelope["headers"]
        if version := newer(fields.get(VERSION_HEADER)):
            raise Newer(version)
        if envelope["body"] != _BODY:
            return None
        return _wakeup(fields), fields.get(SIGNATURE_HEADER)
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return None


def _wakeup(fields: dict[str, Any]) -> Wakeup:
    """What these headers say; raises TypeError or LookupError where they are not like ours."""
    said = Wakeup(fields["task"], fields["id"], fields["kwargsrepr"])
    if not all(isinstance(part, str) for part in said):
        raise TypeError("not text")
    return said
