"""Who is calling: verifies the JWT of a request.

The algorithms come from the settings and fit the kind of key; the token's own header picks
neither key nor algorithm beyond that list. Whatever is wrong, a caller learns only
``Unauthorized``; the reason goes to the log.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import jwt

from callboard.errors import Unauthorized
from callboard.settings import Settings

__all__ = ["Identity", "Verifier", "party_pattern"]

MAX_TOKEN_BYTES = 8192
MAX_SUBJECT_LENGTH = 255
_CACHED_TOKENS = 4096
_TOKEN = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_HOST = "[A-Za-z0-9.-]"
_TYPES = (None, "jwt", "at+jwt", "application/at+jwt")  # RFC 7519 s. 5.1, RFC 9068 s. 2.1
_FOREIGN_KEY_HEADERS = ("jku", "x5u", "jwk", "x5c", "crit", "zip")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A verified caller."""

    subject: str
    claims: Mapping[str, Any] = field(repr=False)
    token: str = field(repr=False)


class KeySource(Protocol):
    """Where verification keys come from."""

    def key(self, header: Mapping[str, Any]) -> Any:
        """The key for a token with this header; raises `Unauthorized`."""


class _FixedKey:
    def __init__(self, key: str) -> None:
        self._key = key

    def key(self, header: Mapping[str, Any]) -> str:
        return self._key


class Verifier:
    """Verifies tokens under the settings, and remembers those it verified until they expire."""

    def __init__(self, settings: Settings, keys: KeySource | None = None) -> None:
        self._settings = settings
        self._keys = keys or _fixed_key(settings)
        self._parties = [party_pattern(text) for text in settings.jwt_authorized_parties]
        self._verified: OrderedDict[bytes, Identity] = OrderedDict()

    def identify(self, authorization: str | None) -> Identity | None:
        """The caller of an ``Authorization`` header; None without one; raises `Unauthorized`."""
        if authorization is None:
            return None
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthorized("the scheme is not Bearer")
        if len(token) > MAX_TOKEN_BYTES or not _TOKEN.fullmatch(token):
            raise Unauthorized("not a signed JWT of at most 8 KB")
        digest = hashlib.sha256(token.encode()).digest()
        known = self._verified.get(digest)
        if known and time.time() < known.claims["exp"]:
            return known
        identity = self._verify(token)
        self._remember(digest, identity)
        return identity

    def _verify(self, token: str) -> Identity:
        try:
            header = jwt.get_unverified_header(token)
            _check_header(header)
            claims = jwt.decode(
                token,
                self._keys.key(header),
                algorithms=list(self._settings.algorithms),
                issuer=self._settings.jwt_issuer,
                audience=self._settings.jwt_audience,
                leeway=self._settings.jwt_leeway,
                options={
                    "require": ["exp", "sub"],
                    "verify_aud": self._settings.jwt_audience is not None,
                },
            )
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise Unauthorized(f"{type(error).__name__}: {error}") from error
        self._check_claims(claims)
        return Identity(subject=claims["sub"], claims=claims, token=token)

    def _check_claims(self, claims: Mapping[str, Any]) -> None:
        subject = claims["sub"]
        if not isinstance(subject, str) or not 0 < len(subject) <= MAX_SUBJECT_LENGTH:
            raise Unauthorized("sub is not a text of 1..255 characters")
        if any(ord(character) < 32 or ord(character) == 127 for character in subject):
            raise Unauthorized("sub holds control characters")
        if isinstance(claims["exp"], bool):
            raise Unauthorized("exp is not a number")
        party = claims.get("azp")
        if self._parties and party is not None:
            accepted = isinstance(party, str) and any(p.fullmatch(party) for p in self._parties)
            if not accepted:
                raise Unauthorized("azp is not among JWT_AUTHORIZED_PARTIES")

    def _remember(self, digest: bytes, identity: Identity) -> None:
        self._verified[digest] = identity
        while len(self._verified) > _CACHED_TOKENS:
            self._verified.popitem(last=False)


def _fixed_key(settings: Settings) -> KeySource:
    if settings.jwt_jwks_url:
        from api.jwks import JwksKeys

        return JwksKeys(settings.jwt_jwks_url)
    if settings.jwt_secret:
        return _FixedKey(settings.jwt_secret.get_secret_value())
    return _FixedKey(settings.jwt_public_key or "")


def _check_header(header: Mapping[str, Any]) -> None:
    kind = header.get("typ")
    if (kind.lower() if isinstance(kind, str) else kind) not in _TYPES:
        raise Unauthorized("typ is not JWT")
    if header.get("cty") is not None:
        raise Unauthorized("a nested token")
    for name in _FOREIGN_KEY_HEADERS:
        if name in header:
            raise Unauthorized(f"the header names {name}")


def party_pattern(text: str) -> re.Pattern[str]:
    """``*`` matches one or more characters of a host name: letters, digits, ``-`` and ``.``.

    Each ``*`` but the last takes as few as it can and never more (an atomic group), so that many
    of them still match in linear time.
    """
    head, *parts = [re.escape(part) for part in text.split("*")]
    if not parts:
        return re.compile(head)
    *inner, tail = parts
    lazy = "".join(f"(?>{_HOST}+?{part})" for part in inner)
    return re.compile(f"{head}{lazy}{_HOST}+{tail}")
