"""`Client`: calls actions over HTTP from Python."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

from callboard import strict_json
from callboard.codes import FAILED, is_code
from callboard.errors import (
    CallboardError,
    Forbidden,
    NotFound,
    RunRefused,
    ServiceUnavailable,
    Unauthorized,
)
from callboard.sdk.results import ActionResult, fail, ok

if TYPE_CHECKING:
    import httpx

__all__ = ["Client", "Reply"]

MARGIN = 10.0  # seconds that a response may take beyond the wait that was asked for
LONGEST_WAIT = 120.0  # seconds: the server's own cap, unless it was configured otherwise
RUN_WAIT = 30  # seconds that one question after a run waits for its end
LONGEST_PAUSE = 10.0  # seconds between two tries
TRY_AGAIN = (429, 503)
LOOK_SECONDS = 2  # that one look at a run waits for its end, where its events break off
_DEPTH = strict_json.MAX_DEPTH + 4  # a result lies in an envelope, which lies in a run
_BATCH_DEPTH = strict_json.MAX_DEPTH + 3  # params lie in a call, in the list, in the body
AWAY_SECONDS = 0.5  # between two looks that nothing answers


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An HTTP response to a call."""

    status: int
    run_id: str | None  # once a run exists
    envelope: dict[
        str, Any
    ]  # {"success": true, "data"} or {"success": false, "error", "code", ...}
    retry_after: float | None = None  # seconds, where the server names them

    @property
    def result(self) -> ActionResult[Any]:
        """The envelope as a result."""
        return _result(self.envelope, self.status)

    @property
    def code(self) -> str | None:
        """Of a failure, what programs tell it by; None for a success."""
        return None if self.envelope["success"] else _code(self.envelope)

    def refusal(self, kind: type[CallboardError]) -> CallboardError:
        """The failure as an error of this kind, with its code and status."""
        refused = kind(_error(self.envelope))
        refused.code, refused.status = _code(self.envelope), self.status
        return refused


class Client:
    """Calls the actions behind ``url``, such as ``http://127.0.0.1:8000``, with a bearer token.

    ``retries``: how often a call is tried again that got no answer, 429 or 503. Such a call
    carries an Idempotency-Key, under which the server runs it once however often it arrives
    (and keeps its result for 24 hours); so it needs a token. As a context manager it keeps its
    connections from one call to the next.
    """

    def __init__(self, url: str, token: str | None = None, *, retries: int = 0) -> None:
        if retries and not token:
            raise ValueError("retries need a token: the server keeps idempotency keys by caller")
        self.url = url.rstrip("/")
        self._token = token
        self._retries = retries
        self._connections: httpx.Client | None = None

    def __enter__(self) -> Self:
        import httpx

        self._connections = httpx.Client()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._connections is not None:
            self._connections.close()
            self._connections = None

    def call(
        self,
        action: str,
        params: Mapping[str, Any] | None = None,
        wait: float | None = None,
        *,
        idempotency_key: str | None = None,
    ) -> ActionResult[Any]:
        """Call an action and wait for its result.

        ``wait``: whole seconds that the server waits before it answers 504, its default when None;
        the run goes on then. ``idempotency_key``: one of your own, 1..255 characters, such as an
        order's number. A refusal (401, 422, ...) is a failure, too. Raises `ServiceUnavailable`
        where nothing, or no Callboard, answers.
        """
        return self.send(action, params, wait=wait, idempotency_key=idempotency_key).result

    def submit(
        self,
        action: str,
        params: Mapping[str, Any] | None = None,
        *,
        idempotency_key: str | None = None,
    ) -> str:
        """Call an action without waiting: the id of its run, for `wait`.

        Raises `RunRefused` with what the server said, where no run came to be, and
        `ServiceUnavailable`.
        """
        return self.start(action, params, key=idempotency_key)

    def start(
        self,
        action: str,
        params: Mapping[str, Any] | None = None,
        *,
        delay: float | None = None,
        at: datetime | None = None,
        key: str | None = None,
    ) -> str:
        """Have an action run, at once or later: the id of its run, for `wait`.

        ``delay`` (seconds) or ``at`` (with its timezone), at most 366 days ahead; ``key``: an
        Idempotency-Key, under which it is one run. Raises as `submit`.
        """
        reply = self.send(
            action, params, respond_async=True, idempotency_key=key, delay=delay, at=at
        )
        if reply.run_id is None:
            raise reply.refusal(RunRefused)
        return reply.run_id

    def batch(self, calls: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Start up to 1,000 runs with one request.

        ``calls``: each ``{"action", "params"?, "key"?, "delay"?}``. Answers ``{"runId"}`` or
        ``{"error", "code", "status", "issues"?}`` for each, in order. Raises as `submit`, where
        the whole is refused.
        """
        body = {"calls": [self._keyed(call) for call in calls]}
        options: dict[str, Any] = {
            "headers": {"Content-Type": "application/json"},
            "content": strict_json.dumps(body, _BATCH_DEPTH),
        }
        reply = self._insist(lambda: self.request("POST", "/api/batch", **options))
        if not reply.envelope["success"]:
            raise reply.refusal(RunRefused)
        answers: list[dict[str, Any]] = reply.envelope["data"]
        return answers

    def _keyed(self, call: Mapping[str, Any]) -> dict[str, Any]:
        """A call of a batch, under a key if it may be tried again."""
        if not self._retries or call.get("key") is not None:
            return dict(call)
        return {**call, "key": str(uuid.uuid4())}

    def wait(self, run_id: str, timeout: float | None = None) -> ActionResult[Any]:
        """The result of a run, once it has ended.

        ``timeout``: seconds; None waits as long as it takes. Raises `TimeoutError` (the run goes
        on), `NotFound` and `ServiceUnavailable`.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = RUN_WAIT if deadline is None else max(deadline - time.monotonic(), 0)
            run = self.run(run_id, wait=min(left, RUN_WAIT))
            if run["completedAt"]:
                return _result(run["result"], None)
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"Run {run_id} is {run['status']} after {timeout:g} s")

    def run(self, run_id: str, wait: float = 0) -> dict[str, Any]:
        """A run as it stands: ``{"runId", "action", "status", "result", "progress", ...}``.

        ``wait``: seconds to wait for its end, rounded up. Raises `NotFound`,
        `Unauthorized` and `ServiceUnavailable`.
        """
        seconds = -int(-wait // 1)
        return self._run("GET", run_id, f"?wait={seconds}", wait=seconds)

    def detail(self, run_id: str) -> dict[str, Any]:
        """All that is known of a run, for the application's owner: `run`, and ``{"params",
        "attempts", "log", "steps", "children", "parent"}``.

        Raises as `run`, and `Forbidden` for anybody else.
        """
        return self._run("GET", run_id, "/detail")

    def cancel(self, run_id: str) -> dict[str, Any]:
        """Cancel a run, and how it stands then. Raises `NotFound` and `ServiceUnavailable`."""
        return self._run("POST", run_id, "/cancel")

    def signal(self, run_id: str, name: str, data: Any = True) -> bool:
        """Tell a run what it waits for, or will wait for: any JSON.

        False where it changes nothing: a signal of this name, or an earlier try of this one, came
        before, or the run has waited for it in vain. Raises `NotFound` where nothing can wait for
        it (any more), `Unauthorized`, `ServiceUnavailable`, and else `RunRefused`.
        """
        path = f"/api/runs/{quote(run_id, safe='')}/signals/{quote(name, safe='')}"
        options: dict[str, Any] = {
            "headers": {"Content-Type": "application/json"},
            "content": strict_json.dumps(data),
        }
        reply = self._insist(lambda: self.request("POST", path, **options))
        if not reply.envelope["success"]:
            raise reply.refusal(_SIGNAL_ERRORS.get(reply.status, RunRefused))
        accepted: bool = reply.envelope["data"]["accepted"]
        return accepted

    def events(self, run_id: str) -> Iterator[dict[str, Any]]:
        """A run at each change of its status or progress, until its end.

        Raises `NotFound` and `ServiceUnavailable`.
        """
        import httpx

        url = f"{self.url}/api/runs/{quote(run_id, safe='')}/events"
        try:
            with (
                self._http() as http,
                http.stream("GET", url, headers=self._headers(), timeout=60) as response,
            ):
                if response.status_code != 200:
                    response.read()
                    _run_of(_reply(self.url, response))
                for line in response.iter_lines():
                    if line.startswith("data: "):
                        yield strict_json.loads(line.removeprefix("data: "), _DEPTH)
        except httpx.HTTPError as error:
            raise ServiceUnavailable(f"{self.url} does not answer: {error}") from error

    def follow(self, run_id: str, patience: float = 60.0) -> Iterator[dict[str, Any]]:
        """A run at each change until its end, also where `events` break off.

        They do when the API restarts, or a proxy cuts them off: then the run is asked for again
        and again. Raises `NotFound`, `Unauthorized`, and `ServiceUnavailable` after ``patience``
        seconds in which nothing answered; the run goes on.
        """
        last: dict[str, Any] | None = None
        away_since: float | None = None
        while True:
            try:
                for run in self._changes(run_id):
                    away_since = None
                    if run != last:
                        last = run
                        yield run
                    if run["completedAt"]:
                        return
            except ServiceUnavailable:
                away_since = away_since or time.monotonic()
                if time.monotonic() - away_since >= patience:
                    raise
                time.sleep(AWAY_SECONDS)

    def _changes(self, run_id: str) -> Iterator[dict[str, Any]]:
        """The events of a run; where they end, whatever the reason, one more look at it."""
        with suppress(ServiceUnavailable):
            yield from self.events(run_id)
        yield self.run(run_id, wait=LOOK_SECONDS)

    def send(
        self,
        action: str,
        params: Mapping[str, Any] | None = None,
        *,
        wait: float | None = None,
        respond_async: bool = False,
        idempotency_key: str | None = None,
        delay: float | None = None,
        at: datetime | str | None = None,
    ) -> Reply:
        """Call an action; the whole reply. ``respond_async``: do not wait for the result.

        ``delay``, ``at``: as for `start`; a text is sent as it is.
        """
        preferences = ["respond-async"] if respond_async else []
        if wait is not None:
            preferences.append(f"wait={int(wait)}")
        headers = {"Prefer": ", ".join(preferences)} if preferences else {}
        headers |= _due(delay, at)
        if idempotency_key is None and self._retries:
            idempotency_key = str(uuid.uuid4())
        if idempotency_key is not None:
            headers["Idempotency-Key"] = idempotency_key
        path = f"/api/actions/{quote(action, safe='')}"
        longest = LONGEST_WAIT if wait is None else wait
        body = strict_json.dumps(dict(params or {}))
        headers["Content-Type"] = "application/json"
        return self._insist(
            lambda: self.request("POST", path, wait=longest, headers=headers, content=body)
        )

    def request(
        self,
        method: str,
        path: str,
        *,
        wait: float = 0.0,
        headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> Reply:
        """Ask any path of the API that answers with an envelope; the whole reply.

        ``path``: such as ``/api/runs``. ``wait``: seconds that the server may take beyond its own
        10. ``options``: httpx's, such as ``params`` and ``json``. Raises `ServiceUnavailable`.
        """
        import httpx

        timeout = httpx.Timeout(10.0, read=wait + MARGIN)
        try:
            with self._http() as http:
                response = http.request(
                    method,
                    self.url + path,
                    headers=self._headers(headers),
                    timeout=timeout,
                    **options,
                )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ServiceUnavailable(f"{self.url} does not answer: {error}") from error
        return _reply(self.url, response)

    def _insist(self, request: Callable[[], Reply]) -> Reply:
        """The reply to a request, tried again as often as `retries` says."""
        for number in range(self._retries):
            reply = None
            with suppress(ServiceUnavailable):
                reply = request()
            if reply is not None and reply.status not in TRY_AGAIN:
                return reply
            named = reply.retry_after if reply is not None else None
            pause = 0.5 * 2**number if named is None else named
            time.sleep(min(pause, LONGEST_PAUSE))
        return request()

    def _run(self, method: str, run_id: str, rest: str, wait: float = 0) -> dict[str, Any]:
        path = f"/api/runs/{quote(run_id, safe='')}{rest}"
        return _run_of(self.request(method, path, wait=wait))

    def _headers(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        own = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        return {**own, **(more or {})}

    @contextmanager
    def _http(self) -> Iterator[httpx.Client]:
        import httpx

        if self._connections is not None:
            yield self._connections
        else:
            with httpx.Client() as http:
                yield http


def _reply(url: str, response: httpx.Response) -> Reply:
    try:
        envelope = strict_json.loads(response.content, _DEPTH)
    except ValueError:
        envelope = None
    if not isinstance(envelope, dict) or "success" not in envelope:
        raise ServiceUnavailable(
            f"{url} answered {response.status_code} without an envelope: is it a Callboard?"
        )
    after = response.headers.get("Retry-After", "")
    return Reply(
        status=response.status_code,
        run_id=response.headers.get("Run-Id"),
        envelope=envelope,
        retry_after=float(after) if after.isdigit() else None,
    )


def _due(delay: float | None, at: datetime | str | None) -> dict[str, str]:
    """The headers that tell when a run is to start."""
    headers = {}
    if delay is not None:
        headers["Run-Delay"] = f"{delay:.3f}"
    if isinstance(at, datetime) and at.utcoffset() is None:
        raise ValueError(f"at: a datetime with its timezone, not {at!r}")
    if at is not None:
        headers["Run-At"] = at if isinstance(at, str) else at.isoformat()
    return headers


def _run_of(reply: Reply) -> dict[str, Any]:
    """The run that a reply shows."""
    if reply.envelope["success"]:
        run: dict[str, Any] = reply.envelope["data"]
        return run
    raise reply.refusal(_ERRORS.get(reply.status, ServiceUnavailable))


_ERRORS: dict[int, type[CallboardError]] = {401: Unauthorized, 403: Forbidden, 404: NotFound}
_SIGNAL_ERRORS = {**_ERRORS, 503: ServiceUnavailable}


def _result(envelope: Mapping[str, Any], status: int | None) -> ActionResult[Any]:
    if envelope["success"]:
        return replace(ok(envelope.get("data")), status=status)
    return replace(fail(_error(envelope), _code(envelope)), status=status)


def _error(envelope: Mapping[str, Any]) -> str:
    return str(envelope.get("error") or "Failed")


def _code(envelope: Mapping[str, Any]) -> str:
    """Of a failure; servers of earlier versions tell none."""
    code = envelope.get("code")
    return code if isinstance(code, str) and is_code(code) else FAILED
