"""Which runs a limit counts together: the tag of its key, as Redis has it.

A tag is made with the application's key: it shows nothing of the caller or the params. While
``SECRET_KEY`` is rotated, what is accepted under each of its keys is counted by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog

from callboard.errors import EXITS, LimitKeyFailed
from callboard.runs.live import caller_tag
from callboard.runs.seal import Call, Sealer
from callboard.sdk.action import Action
from callboard.sdk.limit import Limit

__all__ = ["MAX_KEY_LENGTH", "limit_arguments", "require_key"]

MAX_KEY_LENGTH = 1000  # characters
ALL = "-"  # the tag where there is no key
ANONYMOUS = "anonymous"

_log = structlog.get_logger("callboard.limits")


def limit_arguments(sealer: Sealer, action: Action, call: Call, limit: Limit) -> list[str]:
    """What the script ``accept`` takes of a limit: the tag of the call's key and its numbers;
    no tag, and why, where the application's function does not tell the key."""
    try:
        return [_tag(sealer, action, call, limit.key), limit.numbers]
    except LimitKeyFailed as refusal:
        return ["", str(refusal)]


def require_key(action: Action, call: Call) -> None:
    """Raise `LimitKeyFailed` where the function of the action's limit does not tell the call's key:
    before the call is promised to anybody."""
    if action.limit and callable(action.limit.key):
        _text(action, call, action.limit.key)


def _tag(sealer: Sealer, action: Action, call: Call, key: str | Callable[[Any], str] | None) -> str:
    if key is None:
        return ALL
    if callable(key):
        return sealer.sign("limit", action.name, _text(action, call, key))[:32]
    return caller_tag(sealer, call.caller) if call.caller else ANONYMOUS


def _text(action: Action, call: Call, key: Callable[[Any], str]) -> str:
    """What the application's function says."""
    try:
        text = key(action.validate(call.params))
    except (Exception, *EXITS) as error:  # noqa: BLE001 - whatever the application's function raises
        _log.error("the key of a limit failed", action=action.name, exc_info=error)
        raise _failed(action, f"{type(error).__name__} was raised") from None
    if not isinstance(text, str) or len(text) > MAX_KEY_LENGTH:
        what = f"{len(text):,} characters" if isinstance(text, str) else type(text).__name__
        _log.error("the key of a limit is no text", action=action.name, answered=what)
        raise _failed(action, f"it answered {what}, not a text of at most {MAX_KEY_LENGTH:,}")
    return text


def _failed(action: Action, why: str) -> LimitKeyFailed:
    return LimitKeyFailed(f"The limit of action {action.name!r} has no key for this call: {why}")
