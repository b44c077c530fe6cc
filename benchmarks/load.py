"""The load generator: a closed loop of callers, each with a connection of its own.

    python -m benchmarks.load < load.json

One thread, one epoll, raw sockets: 0.05 to 0.08 ms of CPU per call, so that two cores are left
to what is measured. Every response is checked, status and body. A caller sends its next request as
soon as its response is there. What completes in the lead-in is not counted; at the end every
caller gets its last response, so the next measurement starts from rest.
"""

from __future__ import annotations

import json
import math
import resource
import selectors
import socket
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

__all__ = ["Load", "LoadResult", "percentile"]

ANSWER_TIMEOUT = 10.0  # seconds without a single response: the stack hangs
CHUNK = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What to do."""

    host: str
    port: int
    request: str  # the whole HTTP request
    expect: str  # text that a right body holds
    callers: int
    seconds: float  # counted
    lead_in: float  # seconds before that
    ramp: float = 0.0  # seconds over which the callers begin, one after the other


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadResult:
    """What came of it."""

    calls: int  # right answers in the counted seconds
    all_calls: int  # right answers at all, for costs per call
    calls_per_second: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    cpu_ms: float  # of the generator, per call
    errors: dict[str, int] = field(default_factory=dict)  # what was wrong -> how often


def percentile(ordered: Sequence[float], share: float) -> float:
    """The nearest-rank percentile of sorted values; NaN where there are none."""
    if not ordered:
        return math.nan
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]


class Caller:
    """One connection; at most one request on its way."""

    def __init__(self, address: tuple[str, int], request: bytes) -> None:
        self._address = address
        self._request = request
        self.started = 0.0  # time.perf_counter seconds
        self.socket = self._connect()

    def _connect(self) -> socket.socket:
        self._received = b""
        connection = socket.create_connection(self._address, timeout=ANSWER_TIMEOUT)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def reconnect(self) -> None:
        """Leave the connection, with whatever was on its way."""
        self.socket.close()
        self.socket = self._connect()

    def send(self) -> None:
        """Start the next call."""
        self.started = time.perf_counter()
        self.socket.sendall(self._request)

    def receive(self) -> tuple[bytes, bytes] | None:
        """Take what has come: head and body once they are whole.

        Raises `ConnectionError` where the server closed, ValueError for what has no length.
        """
        chunk = self.socket.recv(CHUNK)
        if not chunk:
            raise ConnectionError("connection closed")
        self._received += chunk
        head, blank, body = self._received.partition(b"\r\n\r\n")
        if not blank or len(body) < _content_length(head):
            return None
        self._received = b""
        return head, body


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise ValueError("no Content-Length")


class Generator:
    """Runs a `Load`."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._expect = load.expect.encode()
        self._finished: list[tuple[float, float]] = []  # (end, latency), perf_counter seconds
        self._errors: Counter[str] = Counter()
        self._selector = selectors.DefaultSelector()
        self._busy = 0
        self._cpu_before = time.process_time()

    def run(self) -> LoadResult:
        """Until the time is over and every caller has its response."""
        load = self._load
        started = time.perf_counter()
        counted_from = started + load.lead_in
        until = counted_from + load.seconds
        for number in range(load.callers):
            self._serve_until(started + load.ramp * number / load.callers, until)
            self._begin()
        while self._busy:
            if not self._serve(ANSWER_TIMEOUT, until):
                self._errors["no response"] += self._busy
                break
        return self._result(counted_from, until)

    def _begin(self) -> None:
        """One more caller."""
        caller = Caller((self._load.host, self._load.port), self._load.request.encode())
        self._selector.register(caller.socket, selectors.EVENT_READ, caller)
        caller.send()
        self._busy += 1

    def _serve_until(self, moment: float, until: float) -> None:
        """Take responses while the next caller has not to begin yet."""
        while (left := moment - time.perf_counter()) > 0:
            self._serve(left, until)

    def _serve(self, timeout: float, until: float) -> bool:
        """Take the responses that are there, or come in time; whether there was one."""
        ready = self._selector.select(timeout)
        for key, _ in ready:
            self._step(key.data, until)
        return bool(ready)

    def _step(self, caller: Caller, until: float) -> None:
        try:
            response = caller.receive()
            if response is None:
                return
        except (OSError, ValueError) as error:
            self._errors[f"{error}"] += 1
            self._selector.unregister(caller.socket)
            caller.reconnect()
            self._selector.register(caller.socket, selectors.EVENT_READ, caller)
        else:
            self._note(caller, *response)
        if time.perf_counter() < until:
            caller.send()
        else:
            self._end(caller)

    def _end(self, caller: Caller) -> None:
        """It has its last response; the server may close what is idle before all others have."""
        self._selector.unregister(caller.socket)
        caller.socket.close()
        self._busy -= 1

    def _note(self, caller: Caller, head: bytes, body: bytes) -> None:
        now = time.perf_counter()
        status = head[9:12]
        if status == b"200" and self._expect in body:
            self._finished.append((now, now - caller.started))
        else:
            self._errors[f"{status.decode()} {body[:100].decode(errors='replace')}"] += 1

    def _result(self, counted_from: float, until: float) -> LoadResult:
        latencies = sorted(took for end, took in self._finished if counted_from <= end < until)
        total = len(self._finished)
        return LoadResult(
            calls=len(latencies),
            all_calls=total,
            calls_per_second=len(latencies) / self._load.seconds,
            p50_ms=1000 * percentile(latencies, 0.50),
            p99_ms=1000 * percentile(latencies, 0.99),
            max_ms=1000 * percentile(latencies, 1.0),
            cpu_ms=1000 * (time.process_time() - self._cpu_before) / max(total, 1),
            errors=dict(self._errors),
        )


def main() -> None:
    """Read a `Load` as JSON, print its `LoadResult` as JSON."""
    load = Load(**json.load(sys.stdin))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a connection per caller
    print(json.dumps(asdict(Generator(load).run())))


if __name__ == "__main__":
    main()
