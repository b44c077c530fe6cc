"""Params and claims as the JSON object that the worker will read."""

from __future__ import annotations

from typing import Any

from callboard import strict_json
from callboard.errors import BadRequest

__all__ = ["MAX_PARAMS_BYTES", "json_object"]

MAX_PARAMS_BYTES = 1024 * 1024  # of JSON: what the API takes, too


def json_object(what: str, value: Any) -> dict[str, Any]:
    """A mapping or a model as plain JSON; raises `BadRequest`. ``what``: how it is called."""
    try:
        text = strict_json.dumps({} if value is None else value)
        if len(text) > MAX_PARAMS_BYTES:
            raise BadRequest(f"{what}: {len(text)} bytes of JSON, at most {MAX_PARAMS_BYTES}")
        plain = strict_json.loads(text)
    except strict_json.NotJson as error:
        raise BadRequest(f"{what} are not JSON: {error}") from None
    if not isinstance(plain, dict):
        raise BadRequest(f"{what} must be an object, such as {{}}, not {type(value).__name__}")
    return plain
