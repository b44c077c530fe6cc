"""Idempotency keys: calls of one caller under one key are one run for 24 hours."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from callboard.errors import BadRequest

__all__ = ["MAX_KEY_LENGTH", "scoped"]

MAX_KEY_LENGTH = 255  # characters


def scoped(key: str, caller: str, action: str, params: Mapping[str, Any]) -> tuple[str, str]:
    """The key within its caller and action, and the digest of the params; for `Runs.accept`.

    Raises `BadRequest` for a key that is too short or too long.
    """
    if not 1 <= len(key) <= MAX_KEY_LENGTH:
        raise BadRequest(f"Idempotency-Key takes 1..{MAX_KEY_LENGTH} characters, not {len(key)}")
    body = json.dumps(params, sort_keys=True, separators=(",", ":"))
    return _digest(caller, action, key), _digest(body)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode(errors="surrogatepass")).hexdigest()
