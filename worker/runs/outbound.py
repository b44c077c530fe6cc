"""What a handler may reach over HTTP: integrations through the gateway, upstreams as the caller.

A token goes out in an ``Authorization`` header, only to an origin that the settings name, and
never along a redirect to another one.

What does I/O is steps (`callboard.sans_io`), for both kinds of handlers.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

import httpx

from callboard import strict_json
from callboard.codes import is_code
from callboard.connections.bounded_http import AsyncBoundedClient, BoundedClient
from callboard.sans_io import Steps, awaited, plain
from callboard.sdk.results import ActionResult, fail, ok

from ..tools.ordinals import Ordinals

if TYPE_CHECKING:
    from ..services import Services
    from .attempt import Attempt

__all__ = ["MAX_RESPONSE_BYTES", "AsyncOutbound", "Outbound"]

MAX_RESPONSE_BYTES = 10 * 1024 * 1024
MAX_REDIRECTS = 5
UPSTREAM_FAILED = "upstream_failed"
_ENDPOINT = re.compile(r"([A-Za-z0-9][A-Za-z0-9_-]{0,63})/([A-Za-z0-9][A-Za-z0-9_.-]{0,127})")
_OPTIONS = {"method", "params", "json", "headers", "content", "data"}


class _Outbound:
    """The outgoing requests of one attempt of a run."""

    #: of this process: a forked one must not use its parent's
    client: Callable[[int], BoundedClient | AsyncBoundedClient]

    def __init__(self, services: Services, attempt: Attempt) -> None:
        self._settings = services.settings
        self._billing = services.registry.integrations
        self._attempt = attempt
        self._tracing = services.tracing
        self._occurrences = Ordinals()

    def _integration(
        self, endpoint: str, data: Mapping[str, Any] | None = None
    ) -> Steps[ActionResult[Any]]:
        """Post ``data`` to the gateway; its response's data, or a failure that says why."""
        match = _ENDPOINT.fullmatch(endpoint) if isinstance(endpoint, str) else None
        if match is None:
            return fail(
                f"Integration {endpoint!r:.80}: an endpoint is two segments, 'name/endpoint'",
                "invalid_data",
            )
        if self._settings.integrations_url is None:
            return fail("Integrations are not configured: set INTEGRATIONS_URL")
        try:
            body = json.dumps(data or {}, allow_nan=False).encode()
        except (TypeError, ValueError) as error:
            return fail(f"Integration {endpoint!r}: data is not JSON: {error}", "invalid_data")
        token = self._paying_token(match[1])
        if token is None:
            return fail("Unauthorized", "unauthorized")
        url = f"{self._settings.integrations_url}/api/integrations/{endpoint}"
        headers = {
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
            "Idempotency-Key": self._idempotency_key(endpoint, body),
        }
        try:
            response = yield from self._send("POST", url, headers=headers, content=body)
        except (httpx.HTTPError, ValueError) as error:
            return fail(f"Integration {endpoint!r} failed: {_reason(error)}", UPSTREAM_FAILED)
        return _unwrapped(endpoint, response)

    def _fetch(self, upstream: str, path: str, **options: Any) -> Steps[httpx.Response]:
        """Request ``path`` of a named upstream as the caller.

        Raises ValueError for an unknown upstream or a path that could lead elsewhere, and
        httpx's errors for what happens on the way.
        """
        base = self._settings.upstreams.get(upstream)
        if base is None:
            known = ", ".join(sorted(self._settings.upstreams)) or "none"
            raise ValueError(f"Unknown upstream {upstream!r}; UPSTREAMS names {known}")
        unknown = set(options) - _OPTIONS
        if unknown:
            raise ValueError(f"fetch() takes no {', '.join(sorted(unknown))}")
        url = base + _plain_path(path)
        if _origin(url) != _origin(base):
            raise ValueError(f"path {path!r:.80} leads away from upstream {upstream!r}")
        headers = httpx.Headers(options.pop("headers", None))
        for name in ("Authorization", "Host", "Cookie"):
            headers.pop(name, None)
        if self._attempt.call.jwt is not None:
            headers["Authorization"] = f"Bearer {self._attempt.call.jwt}"
        method = options.pop("method", "GET")
        return (yield from self._send(method, url, headers=headers, **options))

    def _paying_token(self, name: str) -> str | None:
        """The JWT whose subject pays: the owner's, or the caller's; None where there is none.

        A scheduled run has no caller's token: its caller is the owner.
        """
        owner = self._settings.app_owner_jwt
        caller = self._attempt.call
        if self._billing.get(name, "developer") == "user" and not caller.scheduled:
            return caller.jwt
        return owner.get_secret_value() if owner else None

    def _idempotency_key(self, endpoint: str, body: bytes) -> str:
        """Equal for the same call in a rerun of this run, different for any other."""
        digest = hashlib.sha256(body).hexdigest()
        call = f"{self._attempt.run_id}\0{endpoint}\0{digest}"
        return hashlib.sha256(f"{call}\0{self._occurrences.next(call)}".encode()).hexdigest()

    def _send(self, method: str, url: str, **options: Any) -> Steps[httpx.Response]:
        request = self.client(os.getpid()).build(method, url, **options)
        if self._tracing is None:
            return (yield from self._follow(request))
        with self._tracing.request(request) as note:
            response = yield from self._follow(request)
            note(response)
        return response

    def _follow(self, request: httpx.Request) -> Steps[httpx.Response]:
        """One request, its redirects within the origin, and its whole body, within the deadline."""
        origin = _origin(str(request.url))
        for _ in range(MAX_REDIRECTS + 1):
            response: httpx.Response = yield self.client(os.getpid()).send(
                request, deadline=self._attempt.deadline
            )
            if response.next_request is None:
                return response
            if _origin(str(response.next_request.url)) != origin:
                raise httpx.RequestError("redirected to another origin", request=request)
            request = response.next_request
        raise httpx.TooManyRedirects("too many redirects", request=request)


class Outbound(_Outbound):
    """Those of a plain handler."""

    client = staticmethod(lru_cache(maxsize=1)(lambda process: BoundedClient(MAX_RESPONSE_BYTES)))
    integration = plain(_Outbound._integration)
    fetch = plain(_Outbound._fetch)


class AsyncOutbound(_Outbound):
    """Those of an async handler."""

    client = staticmethod(
        lru_cache(maxsize=1)(lambda process: AsyncBoundedClient(MAX_RESPONSE_BYTES))
    )
    integration = awaited(_Outbound._integration)
    fetch = awaited(_Outbound._fetch)


def _unwrapped(endpoint: str, response: httpx.Response) -> ActionResult[Any]:
    """The gateway answers ``{"success", "data", "error", "code"?}``; other JSON is the data
    itself."""
    try:
        body = strict_json.loads(response.content)
    except ValueError:
        return fail(
            f"Integration {endpoint!r}: {response.status_code}, and no JSON", UPSTREAM_FAILED
        )
    wrapped = isinstance(body, dict) and isinstance(body.get("success"), bool)
    if wrapped and not body["success"]:
        code = body.get("code")
        text = str(body.get("error") or f"Integration {endpoint!r} failed")[:2000]
        return fail(text, code if is_code(code) else UPSTREAM_FAILED)
    if response.status_code == 401:
        return fail("Unauthorized", "unauthorized")
    if not response.is_success:
        text = f"Integration {endpoint!r}: upstream answered {response.status_code}"
        return fail(text, UPSTREAM_FAILED)
    return ok(body.get("data") if wrapped else body)


def _plain_path(path: str) -> str:
    """A path (and query) below the upstream's address; raises ValueError."""
    plain = isinstance(path, str) and re.fullmatch(r"/(?!/)[!-\[\]-~]*", path)
    decoded = re.sub(r"%2[eE]", ".", path) if plain else ""
    segments = re.split(r"/|%2[fF]", decoded.partition("?")[0])
    if not plain or "#" in path or ".." in segments or re.search(r"%5[cC]|%0[0aAdD]", path):
        raise ValueError(f"path {path!r:.80}: starts with one '/', has no host, '\\' or '..'")
    return path


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(urljoin(url, ""))
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return parts.scheme, (parts.hostname or "").lower(), port


def _reason(error: Exception) -> str:
    return "timed out" if isinstance(error, httpx.TimeoutException) else type(error).__name__
