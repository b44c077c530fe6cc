"""Redaction: what is kept of a handler's texts shows no token and no secret of the application."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["REDACTED", "Redactor"]

REDACTED = "[redacted]"
SHORTEST = 8  # characters of a secret: a shorter one would be found everywhere
_JWT = r"eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){0,4}"  # JWS or JWE, also its beginning alone


class Redactor:
    """Takes these secrets, and whatever looks like a JWT, out of a text."""

    def __init__(self, secrets: Iterable[str]) -> None:
        known = sorted({secret for secret in secrets if len(secret) >= SHORTEST}, key=len)
        longest_first = [re.escape(secret) for secret in reversed(known)]
        self._pattern = re.compile("|".join([*longest_first, _JWT]))

    def __call__(self, text: str, token: str | None = None) -> str:
        """The text without them; ``token``: one more, the caller's."""
        if token and len(token) >= SHORTEST:
            text = text.replace(token, REDACTED)
        return self._pattern.sub(REDACTED, text)
