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
from typing import Any, NamedTuple, Protocol

import jwt

from callboard.errors import Unauthorized
from callboard.settings import Settings

from .claims import check_types, read_part

__all__ = ["Identity", "Verifier", "party_pattern"]

MAX_TOKEN_BYTES = 8192
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

    version: int  # of the keys: what was verified with others is verified anew

    def key(self, header: Mapping[str, Any]) -> Any:
        """The key for a token with this header; raises `Unauthorized`, `IssuerUnavailable`."""

    def require(self) -> None:
        """Raises `IssuerUnavailable` while there are no keys."""

    def close(self) -> None:
        """End what was started on the way."""


class _FixedKey:
    version = 0

    def __init__(self, key: str) -> None:
        self._key = key

    def key(self, header: Mapping[str, Any]) -> str:
        return self._key

    def require(self) -> None:
        """It is there."""

    def close(self) -> None:
        """Nothing was started."""


class _Verified(NamedTuple):
    """What is remembered of a token."""

    identity: Identity
    until: float  # epoch seconds
    version: int  # of the keys that it was verified with


class Verifier:
    """Verifies tokens under the settings, and remembers those it verified until they expire or
    the keys change."""

    def __init__(self, settings: Settings, keys: KeySource | None = None) -> None:
        self._settings = settings
        self._keys = keys or _key_source(settings)
        self._parties = [party_pattern(text) for text in settings.jwt_authorized_parties]
        self._verified: OrderedDict[bytes, _Verified] = OrderedDict()

    def identify(self, authorization: str | None) -> Identity | None:
        """The caller of an ``Authorization`` header; None without one.

        Raises `Unauthorized`, and `IssuerUnavailable` while nobody can tell.
        """
        if authorization is None:
            return None
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthorized("the scheme is not Bearer")
        if len(token) > MAX_TOKEN_BYTES or not _TOKEN.fullmatch(token):
            raise Unauthorized("not a signed JWT of at most 8 KB")
        digest = hashlib.sha256(token.encode()).digest()
        version = self._keys.version
        known = self._verified.get(digest)
        if known and known.version == version and time.time() < known.until:
            return known.identity
        identity = self._verify(token)
        self._remember(digest, _Verified(identity, identity.claims["exp"], version))
        return identity

    def require(self) -> None:
        """Raises `IssuerUnavailable` while there are no keys to verify tokens with."""
        self._keys.require()

    def close(self) -> None:
        """End what was started on the way."""
        self._keys.close()

    def _verify(self, token: str) -> Identity:
        try:
            head, payload, _ = token.split(".")
            header = read_part(head)
            _check_header(header)
            check_types(read_part(payload))
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
        self._check_party(claims)
        return Identity(subject=claims["sub"], claims=claims, token=token)

    def _check_party(self, claims: Mapping[str, Any]) -> None:
        party = claims.get("azp")
        if (
            self._parties
            and party is not None
            and not any(pattern.fullmatch(party) for pattern in self._parties)
        ):
            raise Unauthorized("azp is not among JWT_AUTHORIZED_PARTIES")

    def _remember(self, digest: bytes, verified: _Verified) -> None:
        self._verified[digest] = verified
        while len(self._verified) > _CACHED_TOKENS:
            self._verified.popitem(last=False)


def _key_source(settings: Settings) -> KeySource:
    if settings.jwt_jwks_url:
        from .jwks import JwksKeys

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
