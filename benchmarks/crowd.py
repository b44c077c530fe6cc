"""Thousands of runs at once in one process: each waits for ten seconds.

    python -m benchmarks.crowd [--runs 2000]

Exits 1 where a call failed, or where the one process that runs async handlers did not run all of
them at once.
"""

from __future__ import annotations

import argparse
import json
import selectors
import socket
import sys
import time
from collections.abc import Iterable
from typing import Any

from benchmarks.actions_waiting import LONG_SECONDS
from benchmarks.blocked import running_stack
from benchmarks.cpu import cpu_seconds, per_call
from benchmarks.jobs import WAIT
from benchmarks.memory import pss_mib
from benchmarks.stacks.base import HOST, Site
from benchmarks.stacks.ours import OURS_ASYNC, waiting_programs

PATIENCE = 60.0  # seconds without any answer


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2_000)
    runs = parser.parse_args().runs
    with running_stack(
        lambda site: waiting_programs(site, CALLBOARD_ASYNC_RUNS=f"{runs}"), WAIT
    ) as (site, supervisor, _):
        workers = [process for process in supervisor.running if process.name == "worker"]
        before, idle = cpu_seconds(supervisor.running), pss_mib(workers)
        started = time.monotonic()
        waiting = [_send(site) for _ in range(runs)]
        sent = time.monotonic() - started
        time.sleep(LONG_SECONDS / 2)  # all are in their handlers
        busy = pss_mib(workers)
        ends = list(_collect(waiting))
        took = time.monotonic() - started
        cpu = per_call(before, cpu_seconds(supervisor.running), runs)
    processes = {end["pid"] for end in ends}
    most = max((end["most"] for end in ends), default=0)
    costs = ", ".join(f"{name} {cost:.2f}" for name, cost in cpu.items())
    print(f"""\
{runs} calls sent in {sent:.1f} s, {len(ends)} answered 200, the last after {took:.1f} s \
(each waits {LONG_SECONDS:g} s)
{len(processes)} process(es), at most {most} runs at once
PSS of all worker processes: {idle:.0f} MiB idle, {busy:.0f} MiB with all runs \
({1024 * (busy - idle) / runs:.1f} KiB a run)
CPU ms per run: {costs}""")
    sys.exit(not (len(ends) == most == runs and len(processes) == 1))


def _send(site: Site) -> socket.socket:
    connection = socket.create_connection((HOST, site.port))
    connection.sendall(OURS_ASYNC.request(site, "waitLong").as_bytes())
    return connection


def _collect(waiting: Iterable[socket.socket]) -> Iterable[dict[str, Any]]:
    """What the handlers returned, of the calls that were answered with 200."""
    with selectors.DefaultSelector() as selector:
        for connection in waiting:
            selector.register(connection, selectors.EVENT_READ)
        while selector.get_map():
            if not (ready := selector.select(PATIENCE)):
                return
            for key, _ in ready:
                selector.unregister(key.fileobj)
                with key.fileobj as connection:  # type: ignore[union-attr]
                    head, _, body = connection.recv(65536).partition(b"\r\n\r\n")
                if head.startswith(b"HTTP/1.1 200"):
                    yield json.loads(body)["data"]


if __name__ == "__main__":
    main()
