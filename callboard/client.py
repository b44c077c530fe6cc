"""`Client`: calls actions over HTTP from Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from callboard.errors import ServiceUnavailable
from callboard.results import ActionResult, fail, ok

__all__ = ["Client", "Reply"]

MARGIN = 10.0  # seconds that a response may take beyond the wait that was asked for
LONGEST_WAIT = 120.0  # seconds: the server's own cap, unless it was configured otherwise


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An HTTP response to a call."""

    status: int
    run_id: str | None  # once a run exists
    envelope: dict[str, Any]  # {"success": true, "data"} or {"success": false, "error", ...}

    @property
    def result(self) -> ActionResult[Any]:
        """The envelope as a result."""
        if self.envelope["success"]:
            return ok(self.envelope.get("data"))
        return fail(str(self.envelope.get("error") or "Failed"))


class Client:
    """Calls the actions behind ``url``, such as ``http://127.0.0.1:8000``, with a bearer token."""

    def __init__(self, url: str, token: str | None = None) -> None:
        self.url = url.rstrip("/")
        self._token = token

    def call(
        self, action: str, params: Mapping[str, Any] | None = None, wait: float | None = None
    ) -> ActionResult[Any]:
        """Call an action and wait for its result.

        ``wait``: whole seconds that the server waits before it answers 504, its default when None;
        the run goes on then. A refusal (401, 422, ...) is a failure, too. Raises
        `ServiceUnavailable` where nothing, or no Callboard, answers.
        """
        return self.send(action, params, wait=wait).result

    def send(
        self,
        action: str,
        params: Mapping[str, Any] | None = None,
        *,
        wait: float | None = None,
        respond_async: bool = False,
    ) -> Reply:
        """Call an action; the whole reply. ``respond_async``: do not wait for the result."""
        import httpx

        preferences = ["respond-async"] if respond_async else []
        if wait is not None:
            preferences.append(f"wait={int(wait)}")
        headers = {"Prefer": ", ".join(preferences)} if preferences else {}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            response = httpx.post(
                f"{self.url}/api/actions/{action}",
                json=dict(params or {}),
                headers=headers,
                timeout=httpx.Timeout(10.0, read=(wait or LONGEST_WAIT) + MARGIN),
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ServiceUnavailable(f"{self.url} does not answer: {error}") from error
        return _reply(self.url, response)


def _reply(url: str, response: Any) -> Reply:
    try:
        envelope = response.json()
    except ValueError:
        envelope = None
    if not isinstance(envelope, dict) or "success" not in envelope:
        raise ServiceUnavailable(
            f"{url} answered {response.status_code} without an envelope: is it a Callboard?"
        )
    return Reply(
        status=response.status_code, run_id=response.headers.get("Run-Id"), envelope=envelope
    )
