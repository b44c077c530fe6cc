"""The seal: encryption and authentication of what a run carries through the broker.

Whoever can read Redis sees no caller, token, parameter or result; whoever can write it can
neither forge nor move one. Format, version 1::

    0x01 | nonce (12 bytes) | AES-256-GCM ciphertext and tag (16 bytes)

    key              HKDF-SHA256(secret, salt = run id, info = "callboard seal 1")
    associated data  0x01 | kind | 0x00 | run id | 0x00 | action

``kind`` keeps a result from being taken for a call. ``SECRET_KEY`` is a list: the first key
seals, all open, so a key is rotated by putting a new one in front and dropping the old one when
nothing that it sealed is kept any more: calls for `CALL_LIFETIME`, the history for 30 days.

A message on the queue is only a wake-up and carries no content; `Sealer.sign` marks it as ours.
"""

from __future__ import annotations

import hmac
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic_core import from_json

from callboard import strict_json
from callboard.errors import SealError
from callboard.sdk.request import ActionRequest

__all__ = ["CALL_LIFETIME", "Call", "Kind", "Origin", "Sealer", "derive", "origin_of"]

CALL_LIFETIME = 86_400  # seconds from enqueue after which a call no longer runs
VERSION = b"\x01"
_DEPTH = strict_json.MAX_DEPTH + 1  # the params lie in the call

# fmt: off
Kind = Literal[
    "call", "origin", "result", "error", "progress", "params", "step", "signal",
    "report", "exception", "steps", "schedule",
]
# fmt: on


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What a client asked for: all that a worker takes as true about a run."""

    caller: str | None  # the verified JWT subject; None for an anonymous caller
    claims: Mapping[str, Any] = field(default_factory=dict, repr=False)
    jwt: str | None = field(default=None, repr=False)
    params: Mapping[str, Any] = field(default_factory=dict, repr=False)
    scheduled: bool = False  # run by a schedule, as the owner
    acceptance: str | None = None  # of a scheduled run: tells its record from an earlier one's
    trace: str | None = None  # the traceparent of the call's span; None while tracing is off
    expires: float = field(default_factory=lambda: time.time() + CALL_LIFETIME)  # epoch seconds
    parent: str | None = None  # the run that has started this one
    depth: int = 0  # of starts: 1 for the child of a run that somebody called
    request: ActionRequest | None = None  # of an action with `raw=True`
    group: tuple[str, int] | None = None  # whose end it waited for: the id, and how many runs

    def due_in(self, seconds: float) -> Call:
        """The call of a run that is due so many seconds from now: its life counts from then, and
        the token goes along for a day."""
        return replace(
            self,
            expires=time.time() + seconds + CALL_LIFETIME,
            jwt=None if seconds > CALL_LIFETIME else self.jwt,
        )

    def to_json(self) -> bytes:
        """Compact JSON; raises `NotJson` where params or claims are none."""
        values: dict[str, Any] = {
            "caller": self.caller,
            "claims": self.claims,
            "jwt": self.jwt,
            "params": self.params,
            "scheduled": self.scheduled,
            "acceptance": self.acceptance,
            "expires": self.expires,
        }
        if self.trace is not None:
            values["trace"] = self.trace
        if self.parent is not None:
            values |= {"parent": self.parent, "depth": self.depth, "group": self.group}
        if self.request is not None:
            values["request"] = self.request.to_json()
        return strict_json.dumps(values, _DEPTH)

    @classmethod
    def from_json(cls, text: bytes) -> Call:
        """The reverse of `to_json`."""
        values = from_json(text)  # was strict when it was sealed
        if "request" in values:
            values["request"] = ActionRequest.from_json(values["request"])
        return cls(**{name: values[name] for name in cls.__slots__ if name in values})


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a run comes from: what is shown of its call in lists, and after its end."""

    caller: str | None
    acceptance: str | None
    parent: str | None = None

    @classmethod
    def of(cls, call: Call) -> Origin:
        """That of this call."""
        return cls(caller=call.caller, acceptance=call.acceptance, parent=call.parent)

    def to_json(self) -> bytes:
        """A list of them; of a plain call, which has no parent, two."""
        return _listed(self.caller, self.acceptance, self.parent)

    @classmethod
    def from_json(cls, text: bytes) -> Origin:
        """The reverse of `to_json`."""
        caller, acceptance, *parent = strict_json.loads(text)
        return cls(caller=caller, acceptance=acceptance, parent=parent[0] if parent else None)


@lru_cache(maxsize=256)  # a caller's calls follow each other, as a run's children do
def _listed(caller: str | None, acceptance: str | None, parent: str | None) -> bytes:
    parts = [caller, acceptance]
    return strict_json.dumps(parts if parent is None else [*parts, parent])


def origin_of(sealer: Sealer, run_id: str, action: str, record: Mapping[bytes, bytes]) -> Origin:
    """Where the run of this record comes from; raises `SealError`, KeyError, ValueError."""
    if sealed := record.get(b"origin"):
        return Origin.from_json(sealer.open("origin", run_id, action, sealed))
    # of an earlier version
    return Origin.of(Call.from_json(sealer.open("call", run_id, action, record[b"seal"])))


class Sealer:
    """Seals and opens with the keys of ``SECRET_KEY``."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        self._secrets = [key.encode() for key in keys]
        self._signers = [
            hmac.new(derive(secret, b"", b"callboard wake-up 1"), digestmod="sha256")
            for secret in self._secrets
        ]

    def seal(self, kind: Kind, run_id: str, action: str, content: bytes) -> bytes:
        """Encrypt ``content`` for this run and action."""
        nonce = os.urandom(12)
        cipher = _cipher(self._secrets[0], run_id)
        return VERSION + nonce + cipher.encrypt(nonce, content, _context(kind, run_id, action))

    def open(self, kind: Kind, run_id: str, action: str, sealed: bytes) -> bytes:
        """Decrypt; raises `SealError` if any part of it is not as it was sealed."""
        if sealed[:1] != VERSION or len(sealed) < 1 + 12 + 16:
            raise SealError(f"run {run_id}: not a {kind} sealed in a known version")
        for secret in self._secrets:
            try:
                return _cipher(secret, run_id).decrypt(
                    sealed[1:13], sealed[13:], _context(kind, run_id, action)
                )
            except InvalidTag:
                continue
        raise SealError(f"run {run_id}: the {kind} does not open with the keys of SECRET_KEY")

    def sign(self, *parts: str) -> str:
        """A tag that proves that ``parts`` (of a queue message) come from this application."""
        return _tag(self._signers[0], parts)

    def signs(self, *parts: str) -> list[str]:
        """The `sign` of ``parts`` under each of the keys, the first one's first."""
        return [_tag(signer, parts) for signer in self._signers]

    def is_signed(self, tag: object, *parts: str) -> bool:
        """Whether ``tag`` is the `sign` of ``parts`` under any of the keys."""
        return isinstance(tag, str) and any(
            hmac.compare_digest(_tag(signer, parts).encode(), tag.encode(errors="replace"))
            for signer in self._signers
        )


def derive(secret: bytes, salt: bytes, info: bytes) -> bytes:
    """A key for one use (``info``), of 32 bytes."""
    return HKDF(algorithm=SHA256(), length=32, salt=salt, info=info).derive(secret)


@lru_cache(maxsize=1024)  # a run is sealed and opened in one process, a moment apart
def _cipher(secret: bytes, run_id: str) -> AESGCM:
    return AESGCM(derive(secret, run_id.encode(), b"callboard seal 1"))


def _context(kind: str, run_id: str, action: str) -> bytes:
    return VERSION + b"\0".join((kind.encode(), run_id.encode(), action.encode()))


def _tag(signer: hmac.HMAC, parts: tuple[str, ...]) -> str:
    tag = signer.copy()  # with its key prepared: half of the time
    tag.update("\0".join(parts).encode(errors="surrogatepass"))
    return tag.hexdigest()
