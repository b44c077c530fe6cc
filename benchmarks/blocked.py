"""Thousands of callers who wait at once on one API process, and a long series of calls.

    python -m benchmarks.blocked [--callers 2000] [--calls 100000]

The callers wait for runs of a queue that no worker serves yet. Meanwhile other calls are
measured; then a worker for the queue is started, and every caller must get its result. At the
end the resident memory of the API and of the worker is read along a long series of calls.
"""

from __future__ import annotations

import argparse
import selectors
import socket
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.jobs import UPSERT
from benchmarks.servers import Database, Watched, running_database
from benchmarks.sites import running_site, wait_until
from benchmarks.stacks.base import HOST, Request, Site
from benchmarks.stacks.ours import OURS, application
from callboard.stack.process import Process, Program

SAMPLES = 10


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--callers", type=int, default=2_000)
    parser.add_argument("--calls", type=int, default=100_000)
    options = parser.parse_args()
    with running_stack() as (site, supervisor, _):
        processes = {process.name: process for process in supervisor.running}
        _blocked(site, supervisor, processes["web"], options.callers)
        _series(site, processes, options.calls)


@contextmanager
def running_stack(
    programs: Callable[[Site], Sequence[Program]] = OURS.programs, job: str = UPSERT
) -> Iterator[tuple[Site, Watched, Database]]:
    """Callboard as the benchmark runs it, ready; its supervisor runs Valkey, the API, a worker.

    ``job``: a call of it shows that they are ready.
    """
    with (
        running_database() as database,
        running_site("blocked", programs, database, upserts=job == UPSERT) as (site, supervisor),
    ):
        wait_until(lambda: OURS.answers(site, job, 3.0), "Callboard", supervisor)
        yield site, supervisor, database


def _blocked(site: Site, supervisor: Watched, web: Process, callers: int) -> None:
    _calls(site, 1_000)
    usual = statistics.median(_calls(site, 500))
    before = _resident(web)
    waiting = [_send(site, "held") for _ in range(callers)]
    meanwhile = statistics.median(_calls(site, 500))
    each = (_resident(web) - before) / callers
    supervisor.start(application(site).worker(["held"]))
    started, answered = time.monotonic(), _collect(waiting)
    print(f"{callers} callers blocked: {each / 1024:.1f} KiB each; other calls meanwhile "
          f"p50 {meanwhile * 1e3:.2f} ms, usually {usual * 1e3:.2f} ms "
          f"({meanwhile / usual:.2f} x); {answered} answered 200, "
          f"in {time.monotonic() - started:.1f} s after their worker was started")  # fmt: skip


def _series(site: Site, processes: dict[str, Process], calls: int) -> None:
    print(f"{'calls':>9} {'API MiB':>9} {'worker MiB':>11} {'a child MiB':>12}")
    for sample in range(SAMPLES + 1):
        rows = [_resident(processes[name]) / 2**20 for name in ("web", "worker")]
        child = max(_rss(pid) for pid in _children(processes["worker"].pid)) / 2**20
        done = sample * calls // SAMPLES
        print(f"{done:>9} {rows[0]:>9.1f} {rows[1]:>11.1f} {child:>12.1f}", flush=True)
        if sample < SAMPLES:
            _parallel(site, calls // SAMPLES)


def _request(site: Site, job: str) -> bytes:
    request: Request = OURS.request(site, job)
    return request.as_bytes()


def _send(site: Site, job: str) -> socket.socket:
    connection = socket.create_connection((HOST, site.port))
    connection.sendall(_request(site, job))
    return connection


def _calls(site: Site, number: int) -> list[float]:
    """Seconds of each of ``number`` calls, one after the other."""
    seconds, request = [], _request(site, "noop")
    with socket.create_connection((HOST, site.port)) as connection:
        for _ in range(number):
            started, told = time.perf_counter(), b""
            connection.sendall(request)
            while b'"success":true' not in told:
                told += connection.recv(65536)
            seconds.append(time.perf_counter() - started)
    return seconds


def _parallel(site: Site, number: int, callers: int = 16) -> None:
    """``number`` calls by some callers at once."""
    request, left = _request(site, "noop"), number
    with selectors.DefaultSelector() as selector:
        for _ in range(callers):
            connection = socket.create_connection((HOST, site.port))
            selector.register(connection, selectors.EVENT_READ)
            connection.sendall(request)
        while left > 0:
            for key, _ in selector.select():
                told = key.fileobj.recv(65536)  # type: ignore[union-attr]
                if b'"success"' in told:
                    left -= 1
                    key.fileobj.sendall(request)  # type: ignore[union-attr]
        for key in list(selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]


def _collect(waiting: list[socket.socket]) -> int:
    """How many of them get 200."""
    good = 0
    for connection in waiting:
        connection.settimeout(120)
        good += connection.recv(65536).startswith(b"HTTP/1.1 200")
        connection.close()
    return good


def _resident(process: Process) -> int:
    """Bytes of the process, or of its one child where it is gunicorn's arbiter."""
    children = _children(process.pid) if process.name == "web" else []
    return sum(_rss(pid) for pid in children) or _rss(process.pid)


def _children(pid: int) -> list[int]:
    return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _rss(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


if __name__ == "__main__":
    main()
