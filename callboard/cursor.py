"""Cursors: a position in a list as opaque text, which a client passes back unchanged."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

from callboard import strict_json

__all__ = ["decode", "encode"]


def encode(position: Sequence[Any]) -> str:
    """The cursor of a position: JSON values."""
    text = json.dumps(position, ensure_ascii=False, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode(cursor: str) -> Any:
    """The JSON in a cursor, which may be anything; raises ValueError for what is no cursor."""
    padded = cursor.encode() + b"=" * (-len(cursor) % 4)
    return strict_json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
