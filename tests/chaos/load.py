"""The load: HTTP clients that call until they have a final answer, as a careful caller does.

A client sends one call after the other. It sends a call again, with the same Idempotency-Key,
after a connection error, after 503 and 504, and after `Worker lost`. A charge, which must not
happen twice, is sent once, whatever becomes of it.

Some clients call plain handlers, some async ones.
"""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from callboard.stack.tokens import mint_token
from chaos.app.starting import SOLD_OUT

__all__ = ["ACCOUNTS", "ASYNC_CLIENTS", "BALANCE", "CLIENTS", "Call", "Load"]

ACCOUNTS = tuple(f"account-{number}" for number in range(10))
BALANCE = 1_000  # of each account at first
CLIENTS = 8  # of plain handlers
ASYNC_CLIENTS = 4
PATIENCE = 120.0  # seconds after which a client gives a call up: then it is lost
PAUSE = 0.3  # seconds before a call is sent again
THINK = 0.15  # seconds at most between two calls of a client
WAIT = 15  # seconds that a request asks the API to wait
MIX = {
    "putProfile": 20, "appendLine": 20, "transfer": 20, "longRun": 4, "charge": 3,
    "placeOrder": 17, "inviteAll": 16,
}  # fmt: skip
"""Weights. The last two start runs."""
ASYNC = "Async"  # how the names of async actions end
REFUSED = 0.2  # of orders: rolled back
LATER = 0.3  # of orders: their child is due later
DELAY = (0.5, 5.0)  # by so many seconds
TOGETHER = 0.5  # of groups: started in a transaction
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
    held: str = ""  # what its run was like when it was given up

    @property
    def kind(self) -> str:
        """What is done, by a plain or an async handler."""
        return self.action.removesuffix(ASYNC)

    @property
    def once(self) -> bool:
        """Whether it must not be sent again: `on_worker_lost="fail"`."""
        return self.kind == "charge"

    @property
    def worker_lost(self) -> bool:
        """Whether the caller was told that the run ended with its worker."""
        return self.envelope.get("error") == "Worker lost"

    @property
    def final(self) -> bool:
        """Whether there is nothing to ask for any more."""
        return self.once or not (self.status in (503, 504) or self.worker_lost)

    @property
    def refused(self) -> bool:
        """Whether its handler fails, and its transaction is rolled back."""
        return bool(self.params.get("refused"))

    @property
    def as_expected(self) -> bool:
        """Whether the caller was told what the handler returns."""
        if self.refused:
            return self.status == 200 and self.envelope.get("error") == SOLD_OUT
        return self.succeeded

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
        async_clients: int = 0,
        long: tuple[float, float] = LONG,
        inspect: Callable[[str], str] = lambda run_id: "",
    ) -> None:
        """``keyed``: send an Idempotency-Key (its run stays in Redis for a day). ``inspect``: says
        what the run of a call is like that is given up."""
        self._long = long
        self._inspect = inspect
        self.calls: list[Call] = []
        self._url = url
        self._headers = {"Authorization": f"Bearer {mint_token('chaos', secret)}"}
        self._keyed = keyed
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._client, args=(random.Random(f"{seed}/{number}"), suffix))
            for number, suffix in enumerate([""] * clients + [ASYNC] * async_clients)
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

    def _client(self, chance: random.Random, suffix: str) -> None:
        with self._http() as http:
            while not self._stopping.is_set():
                call = _next_call(chance, self._long, suffix)
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
                if call.once:
                    return
                time.sleep(PAUSE)
                continue
            call.run_id = response.headers.get("Run-Id", call.run_id)
            call.status, call.envelope = response.status_code, response.json()
            if call.final:
                call.answered = time.monotonic()
            elif call.status != 504:
                time.sleep(PAUSE)
        if call.answered is None and call.run_id:
            call.held = self._inspect(call.run_id)

    def _send(self, http: httpx.Client, call: Call) -> httpx.Response:
        headers = {"Prefer": f"wait={WAIT}"}
        if self._keyed:
            headers["Idempotency-Key"] = call.key
        return http.post(f"/api/actions/{call.action}", json=dict(call.params), headers=headers)


def _next_call(chance: random.Random, long: tuple[float, float], suffix: str) -> Call:
    key = str(uuid.UUID(int=chance.getrandbits(128), version=4))
    (action,) = chance.choices(list(MIX), weights=list(MIX.values()))
    params: dict[str, Any] = {"key": key}
    if action == "longRun":
        params["seconds"] = round(chance.uniform(*long), 1)
    elif action == "inviteAll":
        params["guests"], params["together"] = chance.randint(1, 6), chance.random() < TOGETHER
    elif action != "charge":
        params["amount"] = chance.randint(1, 50)
    if action == "placeOrder":
        params["refused"] = chance.random() < REFUSED
        params["delay"] = round(chance.uniform(*DELAY), 1) if chance.random() < LATER else None
    if action == "transfer":
        params["source"], params["target"] = chance.sample(ACCOUNTS, 2)
    return Call(action=action + suffix, key=key, params=params)
