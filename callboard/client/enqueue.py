"""`enqueue`: a run for a program that shares the application's settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from callboard.errors import ConfigurationError

__all__ = ["enqueue"]


def enqueue(
    action: str,
    params: Any = None,
    *,
    caller: str | None,
    claims: Mapping[str, Any] | None = None,
    key: str | None = None,
) -> str:
    """Have an action run on a worker, from code of the application's own; the run's id.

    It waits for no result: `Client.wait` does, and ``GET /api/runs/<id>`` has it. ``params``: a
    mapping or a pydantic model. ``caller``: the user's id, which is believed; None for an anonymous
    run. ``claims``: what the handler reads as ``ctx.claims`` besides ``sub``; ``ctx.caller_jwt`` is
    None. ``key``: calls under one key, of one caller and action, are one run for 24 hours, so that
    code that is tried again may call twice.

    It reads the settings of the API and the worker from the environment and imports the actions
    package on the first call; a process keeps its connection. It returns or raises within seconds.

    Raises `ConfigurationError` (a setting or the actions package is wrong, or the extra ``server``
    is not installed); `UnknownAction`, `InvalidParams`, `Forbidden`, `BadRequest`, `KeyReused` (the
    call is wrong); `QueueFull`, `BrokerUnavailable` (try again later). All are in
    `callboard.errors`.
    """
    try:
        from callboard.producer import get_producer
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"callboard.enqueue needs {error.name}, which comes with the extra `server`: "
            "pip install 'callboard[server]'"
        ) from error
    return get_producer().enqueue(action, params, caller=caller, claims=claims, key=key)
