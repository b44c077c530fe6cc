"""Verification keys from ``JWT_JWKS_URL``.

A thread fetches the set at the first request, every five minutes, and when a token names a key
that is not in it, then at most every ten seconds. Meanwhile the old set serves: a request waits
only where its key is not there, and not for long. While the issuer does not answer, the last set
is used for a day. The URL comes from the settings alone: a token chooses no request.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from itertools import islice
from typing import Any

import httpx
import jwt
import structlog

from callboard.connections.bounded_http import BoundedClient
from callboard.errors import IssuerUnavailable, Unauthorized
from callboard.processes.threads import Supervised, supervise

__all__ = ["JwksKeys", "usable_keys"]

FRESH_SECONDS = 300.0  # between two fetches
PAUSE_SECONDS = 10.0  # between two that tokens ask for, whatever tokens come
RETRY_SECONDS = 2.0  # after a fetch that failed
STALE_SECONDS = 86_400.0  # how long keys are used while the issuer is away
PATIENCE_SECONDS = 1.5  # that a request waits for a key
EXCHANGE_SECONDS = 5.0  # that a fetch may take, from the first step to the last
MAX_BYTES = 256 * 1024
MAX_KEYS = 256
MIN_RSA_BITS = 2048  # RFC 7518 s. 3.3
_ALGORITHMS = {"EC": "ES256", "RSA": "RS256", "OKP": "EdDSA"}  # by type of key

Keys = Mapping[tuple[str, str], jwt.PyJWK]  # by kid and algorithm

_log = structlog.get_logger("callboard.identity")


class _Fetch:
    """One try to fetch the set."""

    def __init__(self) -> None:
        self.begun = time.monotonic()
        self.ended = threading.Event()
        self.succeeded = False

    @property
    def is_recent(self) -> bool:
        """Whether its answer still counts: nobody fetches again."""
        pause = PAUSE_SECONDS if self.succeeded else RETRY_SECONDS
        return not self.ended.is_set() or time.monotonic() - self.begun < pause


class JwksKeys:
    """The issuer's current keys. Any number of threads may ask for them."""

    def __init__(self, url: str) -> None:
        self.version = 0  # of the set: another one means other keys
        self._url = url
        self._keys: Keys | None = None  # None: there is no set that could be used
        self._content: Any = None  # the set as it was sent
        self._logged = ""  # what is wrong with it, as logged
        self._fetched = 0.0  # time.monotonic seconds: when the last fetch succeeded
        self._guard = threading.Lock()  # of the two below; held for a moment
        self._latest: _Fetch | None = None
        self._thread: Supervised | None = None
        self._wanted, self._stopped = threading.Event(), threading.Event()

    def key(self, header: Mapping[str, Any]) -> jwt.PyJWK:
        """The key that the header's ``kid`` names, of the header's algorithm.

        Raises `Unauthorized` where there is none, and `IssuerUnavailable` where nobody can tell.
        """
        kid, algorithm = header.get("kid"), header.get("alg")
        if not isinstance(kid, str) or not isinstance(algorithm, str):
            raise Unauthorized("no kid, or no alg")
        found = (self._keys or {}).get((kid, algorithm))
        return found or self._look_up((kid, algorithm))

    def require(self) -> None:
        """Raises `IssuerUnavailable` while there is no set, and has it fetched."""
        if self._keys is None:
            self._fetch_soon().ended.wait(PATIENCE_SECONDS)
        if self._keys is None:
            raise IssuerUnavailable

    def close(self) -> None:
        """End the thread."""
        self._stopped.set()
        self._wanted.set()
        if self._thread:
            self._thread.join(EXCHANGE_SECONDS)

    def _look_up(self, name: tuple[str, str]) -> jwt.PyJWK:
        """A key that was not there: perhaps it is in the next set."""
        latest = self._fetch_soon()
        latest.ended.wait(PATIENCE_SECONDS)
        if found := (self._keys or {}).get(name):
            return found
        if not latest.succeeded:
            raise IssuerUnavailable
        raise Unauthorized("no key of this kid and algorithm")

    def _fetch_soon(self) -> _Fetch:
        """The latest fetch, if it is a recent one, or the next."""
        with self._guard:
            if self._latest is None or not self._latest.is_recent:
                self._latest = _Fetch()
                self._wanted.set()
            if self._thread is None:  # on first use: a server may have forked before
                self._thread = supervise("key set", self._keep_fresh, self._stopped)
            return self._latest

    # In the thread

    def _keep_fresh(self) -> None:
        while not self._stopped.is_set():
            self._wanted.clear()
            with self._guard:
                if self._latest is None or self._latest.ended.is_set():
                    self._latest = _Fetch()
                current = self._latest
            try:
                self._refresh(current)
            finally:
                current.ended.set()
            self._wanted.wait(FRESH_SECONDS if current.succeeded else RETRY_SECONDS)

    def _refresh(self, current: _Fetch) -> None:
        try:
            content = _fetch(self._url)
            keys = self._keys if content == self._content else usable_keys(content)
        except (httpx.HTTPError, ValueError, TypeError, KeyError, RecursionError) as error:
            self._log_change(f"{type(error).__name__}: {error}"[:200])
            if self._keys is not None and time.monotonic() - self._fetched > STALE_SECONDS:
                self._keys, self._content = None, None
                self.version += 1
            return
        if keys is not self._keys:
            self._keys, self._content = keys, content
            self.version += 1
        self._log_change("")
        self._fetched = time.monotonic()
        current.succeeded = True

    def _log_change(self, why: str) -> None:
        """Log what is wrong, or "", where it is another thing than the last time."""
        if why and why != self._logged:
            _log.warning("the key set was not fetched; trying again", why=why)
        elif self._logged and not why:
            _log.warning("the key set is there again")
        self._logged = why


def _fetch(url: str) -> Any:
    """The key set's JSON, over a connection of its own; raises `httpx.HTTPError`, ValueError."""
    client = BoundedClient(MAX_BYTES)
    try:
        request = client.build("GET", url, headers={"Accept": "application/json"})
        response = client.send(request, deadline=time.monotonic() + EXCHANGE_SECONDS)
    finally:
        client.close()
    if response.status_code != 200:
        raise ValueError(f"the issuer answered {response.status_code}")
    return json.loads(response.content)


def usable_keys(key_set: Any) -> Keys:
    """The keys of a JWK set (RFC 7517) that verify signatures; others are left out.

    Raises TypeError or KeyError for what is no key set.
    """
    entries = key_set["keys"]
    if not isinstance(entries, list):
        raise TypeError("the keys of the set are no list")
    usable: dict[tuple[str, str], jwt.PyJWK] = {}
    for entry in islice(entries, MAX_KEYS):
        try:
            key = _usable(entry)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one costs that one
            _log.warning("a key of the set is left out", why=type(error).__name__)
            continue
        if key is not None:
            usable.setdefault((str(key.key_id), key.algorithm_name), key)
    return usable


def _usable(entry: Any) -> jwt.PyJWK | None:
    """The entry as a key, if it may verify signatures; raises whatever cryptography does."""
    algorithm = _ALGORITHMS.get(entry.get("kty"))
    if (
        not isinstance(entry.get("kid"), str)
        or entry.get("alg", algorithm) != algorithm
        or entry.get("use", "sig") != "sig"
        or "verify" not in entry.get("key_ops", ["verify"])
    ):
        return None
    key = jwt.PyJWK(entry, algorithm)
    if algorithm == "ES256" and entry.get("crv") != "P-256":
        return None
    if algorithm == "RS256" and key.key.key_size < MIN_RSA_BITS:
        return None
    return key
