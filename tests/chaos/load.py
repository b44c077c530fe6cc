"""The load: HTTP clients that call until they have a final answer, as a careful caller does.

A client sends one call after the other. It sends a call again, with the same Idempotency-Key,
after a connection error, after 503 and 504, and after `Worker lost`.
"""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from callboard.stack.tokens import mint_token

__all__ = ["ACCOUNTS", "BALANCE", "CLIENTS", "Call", "Load"]

ACCOUNTS = tuple(f"account-{number}" for number in range(10))
BALANCE = 1_000  # of each account at first
CLIENTS = 8
PATIENCE = 120.0  # seconds after which a client gives a call up: then it is lost
PAUSE = 0.3  # seconds before a call is sent again
THINK = 0.15  # seconds at most between two calls of a client
WAIT = 15  # seconds that a request asks the API to wait
MIX = {"putProfile": 32, "appendLine": 32, "transfer": 32, "longRun": 4}  # weights
LONG = (5.5, 7.5)  # seconds that a long run takes: more than a lease


@dataclass(kw_only=True)
class Call:
    """A call and what its caller was told. Times are `time.monotonic` seconds."""

    action: str
    key: str
    params: Mapping[str, Any]
    run_id: str | None = None
    tries: int = 0
    sent: float = 0.0  # the request that brought the final answer
    answered: float | None = None  # None: there was no final answer
    status: int = 0
    envelope: Mapping[str, Any] = field(default_factory=dict)

    @property
    def succeeded(self) -> bool:
        """Whether the caller was told a success."""
        return self.status == 200 and bool(self.envelope.get("success"))


class Load:
    """Clients in threads; ``calls`` holds every call that they made."""

    def __init__(
        self,
        url: str,
        secret: str,
        seed: int,
        *,
        keyed: bool = True,
        clients: int = CLIENTS,
        long: tuple[float, float] = LONG,
    ) -> None:
        """``keyed``: send an Idempotency-Key (its run stays in Redis for a day)."""
        self._long = long
        self.calls: list[Call] = []
        self._url = url
        self._headers = {"Authorization": f"Bearer {mint_token('chaos', secret)}"}
        self._keyed = keyed
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._client, args=(random.Random(f"{seed}/{number}"),))
            for number in range(clients)
        ]

    def start(self) -> None:
        """Open the accounts and let the clients begin."""
        with self._http() as http:
            call = Call(action="openAccounts", key="open", params=dict.fromkeys(ACCOUNTS, BALANCE))
            self._insist(http, call)
        if not call.succeeded:
            raise RuntimeError(f"the accounts were not opened: {call}")
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Send no new call and wait until each client has its answer."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _http(self) -> httpx.Client:
        timeout = httpx.Timeout(WAIT + 10.0)  # a busy machine may accept late
        return httpx.Client(base_url=self._url, headers=self._headers, timeout=timeout)

    def _client(self, chance: random.Random) -> None:
        with self._http() as http:
            while not self._stopping.is_set():
                call = _next_call(chance, self._long)
                self.calls.append(call)
                self._insist(http, call)
                self._stopping.wait(chance.uniform(0, THINK))

    def _insist(self, http: httpx.Client, call: Call) -> None:
        until = time.monotonic() + PATIENCE
        while call.answered is None and time.monotonic() < until:
            call.tries += 1
            call.sent = time.monotonic()
            try:
                response = self._send(http, call)
            except httpx.TransportError:
                time.sleep(PAUSE)
                continue
            call.run_id = response.headers.get("Run-Id", call.run_id)
            call.status, call.envelope = response.status_code, response.json()
            if _is_final(call):
                call.answered = time.monotonic()
            elif call.status != 504:
                time.sleep(PAUSE)

    def _send(self, http: httpx.Client, call: Call) -> httpx.Response:
        headers = {"Prefer": f"wait={WAIT}"}
        if self._keyed:
            headers["Idempotency-Key"] = call.key
        return http.post(f"/api/actions/{call.action}", json=dict(call.params), headers=headers)


def _is_final(call: Call) -> bool:
    return call.status not in (503, 504) and call.envelope.get("error") != "Worker lost"


def _next_call(chance: random.Random, long: tuple[float, float]) -> Call:
    key = str(uuid.UUID(int=chance.getrandbits(128), version=4))
    (action,) = chance.choices(list(MIX), weights=list(MIX.values()))
    params: dict[str, Any] = {"key": key}
    if action == "longRun":
        params["seconds"] = round(chance.uniform(*long), 1)
    else:
        params["amount"] = chance.randint(1, 50)
    if action == "transfer":
        params["source"], params["target"] = chance.sample(ACCOUNTS, 2)
    return Call(action=action, key=key, params=params)
