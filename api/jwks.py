"""Verification keys from ``JWT_JWKS_URL``.

The set is fetched when a token names a ``kid`` that is not known, at most every 30 seconds,
and used on for a day while the issuer does not answer. The URL comes from the settings alone:
a token chooses no request.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

import httpx
import jwt
import structlog

from callboard.errors import Unauthorized

__all__ = ["JwksKeys"]

REFRESH_SECONDS = 30.0  # between two fetches, whatever tokens come
FRESH_SECONDS = 600.0  # after which a known key is looked up again
STALE_SECONDS = 86_400.0  # how long keys are used while the issuer is down
TIMEOUT_SECONDS = 3.0
MAX_BYTES = 256 * 1024
_TYPES = {"EC": ("ES256",), "RSA": ("RS256",), "OKP": ("EdDSA",)}

_log = structlog.get_logger("callboard.identity")


class JwksKeys:
    """The issuer's current keys, by ``kid``."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched = self._tried = float("-inf")  # time.monotonic seconds
        self._lock = threading.Lock()

    def key(self, header: Mapping[str, Any]) -> jwt.PyJWK:
        """The key that the header's ``kid`` names, if it is of the header's algorithm."""
        kid = header.get("kid")
        if not isinstance(kid, str):
            raise Unauthorized("no kid")
        age = time.monotonic() - self._fetched
        if kid not in self._keys or age > FRESH_SECONDS:
            self._refresh()
        found = self._keys.get(kid)
        if found is None or time.monotonic() - self._fetched > STALE_SECONDS:
            raise Unauthorized("no key of this kid")
        if header.get("alg") not in _TYPES[found.key_type or ""]:
            raise Unauthorized("the key is of another type")
        return found

    def _refresh(self) -> None:
        with self._lock:
            if time.monotonic() - self._tried < REFRESH_SECONDS:
                return
            self._tried = time.monotonic()
            try:
                self._keys = _usable(self._fetch())
                self._fetched = time.monotonic()
            except (httpx.HTTPError, ValueError, TypeError, KeyError) as error:
                _log.warning("the key set was not fetched", why=type(error).__name__)

    def _fetch(self) -> Any:
        """The key set's JSON; a body over the limit, or one that dribbles in, is refused."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        body = bytearray()
        with httpx.stream(
            "GET", self._url, timeout=TIMEOUT_SECONDS, follow_redirects=False, trust_env=False
        ) as response:
            response.raise_for_status()
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > MAX_BYTES or time.monotonic() > deadline:
                    raise ValueError("the key set is too large or too slow")
        return httpx.Response(200, content=bytes(body)).json()


def _usable(key_set: Any) -> dict[str, jwt.PyJWK]:
    """The signature keys of known types; others are left out."""
    usable: dict[str, jwt.PyJWK] = {}
    for entry in key_set["keys"]:
        if not isinstance(entry, dict) or not isinstance(entry.get("kid"), str):
            continue
        if entry.get("kty") not in _TYPES or entry.get("use", "sig") != "sig":
            continue
        algorithm = _TYPES[entry["kty"]][0]
        try:
            usable[entry["kid"]] = jwt.PyJWK({**entry, "alg": algorithm})
        except jwt.PyJWTError:
            continue
    return usable
