"""What chooses runs, from a query or a body, checked: each raises `BadRequest`, which names it."""

from __future__ import annotations

import re
from typing import cast, get_args

from callboard.errors import BadRequest
from callboard.runs.record import Status

__all__ = ["checked_action", "checked_status"]

_ACTION = re.compile(r"[A-Za-z0-9_-]{1,64}")


def checked_action(action: object) -> str | None:
    """The name of an action, whether there is one or not; None for none."""
    if action is None:
        return None
    if not isinstance(action, str):
        raise BadRequest(f"action: the name of an action, not {action!r:.40}")
    if not _ACTION.fullmatch(action):
        raise BadRequest(f"action: {action[:64]!r} is not the name of an action")
    return action


def checked_status(status: object) -> Status | None:
    """A status of runs; None for none."""
    known = get_args(Status)
    if status is not None and status not in known:
        raise BadRequest(f"status: one of {', '.join(known)}, not {status!r:.42}")
    return cast("Status | None", status)
