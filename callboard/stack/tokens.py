"""Development tokens: signed with JWT_SECRET, accepted by the API as any other."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

__all__ = ["DEFAULT_TTL", "mint_token"]

DEFAULT_TTL = 12 * 3600  # seconds


def mint_token(
    subject: str,
    secret: str,
    *,
    ttl: int = DEFAULT_TTL,
    claims: Mapping[str, Any] | None = None,
) -> str:
    """An HS256 token for ``subject``, valid ``ttl`` seconds.

    It carries the issuer, audience and authorized party that JWT_ISSUER, JWT_AUDIENCE and
    JWT_AUTHORIZED_PARTIES of the environment ask for; ``claims`` go over all of them.
    """
    import jwt

    now = int(time.time())
    payload = {"sub": subject, "iat": now, "exp": now + ttl, **_requested(), **(claims or {})}
    return jwt.encode(payload, secret, algorithm="HS256")


def _requested() -> dict[str, str]:
    party = os.environ.get("JWT_AUTHORIZED_PARTIES", "").split(",")[0].strip()
    asked = {
        "iss": os.environ.get("JWT_ISSUER"),
        "aud": os.environ.get("JWT_AUDIENCE"),
        "azp": party.replace("*", "callboard"),
    }
    return {claim: value for claim, value in asked.items() if value}
