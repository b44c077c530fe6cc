"""A loop process: from its fork to its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from celery import platforms, signals
from celery.concurrency.prefork import WORKER_SIGIGNORE, WORKER_SIGRESET

from callboard.connections.mongodb import AsyncStore
from callboard.connections.redis import connect_async
from callboard.errors import BrokerUnavailable
from callboard.runs.message import Wakeup

from ..hooks.process import held_in_loop
from ..lease.slots import Slots
from ..pool.processes import begin_child
from ..pool.task_events import TaskEvents
from ..runs.descendants import prepare_child
from ..runs.execution import STOP_SIGNAL
from ..runs.lifecycle import HandedBack, HandlerStopped
from .execution import Executor
from .running import Running, make_task
from .runs import AsyncRuns
from .taking import Taking
from .watch import Watch

if TYPE_CHECKING:
    from ..services import Services

__all__ = ["HandlerThreads", "run_loop"]

HANDLER_THREADS = 64  # of `asyncio.to_thread`; those of ours are others
LOOK_SECONDS = 0.1
HAND_BACK_SECONDS = 1.0  # before the end of the grace: to cancel handlers and queue their runs

_log = structlog.get_logger("callboard.worker")


def run_loop(
    app: Any,
    hostname: str,
    slots: Slots,
    queues: Sequence[str],
    max_memory: int | None,
    parent: int,
) -> None:
    """Execute runs until the worker, or this process, is told to end. In a process of its own.

    ``queues``: the keys of the lists to take from. ``max_memory``: KiB, above which the process is
    replaced. ``parent``: the id of the worker's main process.
    """
    begin_child(parent)
    prepare_child()
    platforms.signals.reset(*WORKER_SIGRESET, "SIGQUIT")  # those of the main process
    platforms.signals.ignore(*WORKER_SIGIGNORE)
    loop = _Loop()
    asyncio.set_event_loop(loop)
    try:
        main = loop.create_task(_Process(app, hostname, slots, queues, max_memory).main())
        while not main.done():
            try:
                loop.run_until_complete(main)
            except (SystemExit, KeyboardInterrupt) as error:  # of a task that a handler started
                _log.error("a task of a handler raised", exc_info=error)
    finally:
        signals.worker_process_shutdown.send(sender=None, pid=os.getpid(), exitcode=0)


class HandlerThreads(ThreadPoolExecutor):
    """Threads that work in the context of who asks: `run_in_executor` leaves that to them."""

    def submit(self, function: Any, /, *args: Any, **options: Any) -> Any:
        """As `ThreadPoolExecutor.submit`."""
        return super().submit(copy_context().run, _without_stop, function, *args, **options)


def _without_stop(function: Any, /, *args: Any, **options: Any) -> Any:
    """What it answers; a StopIteration, which a future of asyncio's does not take, as an error."""
    try:
        return function(*args, **options)
    except StopIteration as error:
        raise RuntimeError("the function raised StopIteration") from error


class _Loop(asyncio.SelectorEventLoop):
    """Looks names up in threads of its own: handlers cannot use them up."""

    def __init__(self) -> None:
        super().__init__()
        self.set_task_factory(make_task)  # type: ignore[arg-type]  # it gives the loop first
        self.set_default_executor(HandlerThreads(HANDLER_THREADS, "handler"))
        self._names = ThreadPoolExecutor(8, "resolver")

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        """As asyncio's."""
        ask = partial(socket.getaddrinfo, host, port, **options)
        return await self.run_in_executor(self._names, ask)


class _Process:
    """What a loop process is made of; made in its loop's thread."""

    def __init__(
        self, app: Any, hostname: str, slots: Slots, queues: Sequence[str], most: int | None
    ) -> None:
        self._services: Services = app.services
        self._slots = slots
        self._queues = queues
        self._events = TaskEvents(app, hostname)
        self._actions = {one.task: one for one in self._services.registry.actions.values()}
        self._most = most  # KiB
        self._running: dict[int, Running] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False  # this process takes no further run

    async def main(self) -> None:
        """Take runs, and end when there are none in hand any more."""
        loop = asyncio.get_running_loop()
        services, client = self._services, connect_async(self._services.settings)
        runs = AsyncRuns(client, services.sealer, services.keys)
        services.on_count = lambda name: self._start(_counted(runs, name))
        self._executor = Executor(services, runs, AsyncStore.of(services.settings))
        self._taking = Taking(client, runs, self._queues)
        watch = Watch(loop, self._running.values)
        loop.add_signal_handler(STOP_SIGNAL, self._stop_requested)
        loop.add_signal_handler(signal.SIGTERM, self._close)
        hooks = services.registry.hooks
        async with held_in_loop(hooks, services.reports, lambda: self._ends) as services.state:
            watch.start()
            looks = loop.create_task(self._look())
            await self._taking.take(lambda: self._slots.free, self._receive, lambda: not self._ends)
            await self._drain()
            looks.cancel()
            watch.stop()

    @property
    def _ends(self) -> bool:
        return self._closed or self._services.scoreboard.closed

    def _close(self) -> None:
        self._closed = True

    def _receive(self, message: bytes) -> None:
        """Begin the run of a message, if it is one of ours."""
        wakeup, _ = self._services.read(message) or (None, None)
        if wakeup is None:
            return
        action = self._actions[wakeup.task]
        if not action.is_async:  # it was when the run was accepted
            self._services.pass_on(wakeup)
            return
        number = self._slots.take(wakeup.run_id, action.name)
        running = self._running[number] = Running(wakeup.run_id, action, number)
        self._start(self._run(wakeup, running), context=running.context())

    def _start(self, coroutine: Any, **options: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine, **options)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, wakeup: Wakeup, running: Running) -> None:
        started = time.monotonic()
        self._events.started(wakeup)
        try:
            delivered = await self._executor.execute(running)
            self._events.ended(wakeup, delivered, time.monotonic() - started)
        except BrokerUnavailable:
            return  # the run was not claimed; its record has it woken again
        except Exception as error:  # noqa: BLE001 - one run must not cost the others
            _log.error("run not executed", exc_info=error)
        finally:
            del self._running[running.number]
            self._slots.let_go(running.number)
            self._taking.has_room()

    def _stop_requested(self) -> None:
        """The keeper wants runs to stop."""
        for number in self._slots.to_stop():
            self._running[number].stop(HandlerStopped)

    async def _look(self) -> None:
        """A process that has grown too large is replaced, once it is empty."""
        while True:
            await asyncio.sleep(1.0)
            if self._most and _memory() > self._most and not self._closed:
                _log.warning("a loop process is replaced: it has grown", mib=_memory() // 1024)
                self._close()

    async def _drain(self) -> None:
        """Wait for what is in hand; near the end of the worker's grace, hand it back."""
        end = float("inf")
        while self._tasks:
            if self._services.scoreboard.closed and end == float("inf"):
                grace = self._services.settings.stop_grace
                end = time.monotonic() + max(grace - HAND_BACK_SECONDS, grace / 2)
            if time.monotonic() >= end:
                for running in tuple(self._running.values()):
                    running.stop(HandedBack)
                end = time.monotonic() + HAND_BACK_SECONDS
            await asyncio.wait(self._tasks, timeout=LOOK_SECONDS)


async def _counted(runs: AsyncRuns, name: str) -> None:
    with contextlib.suppress(BrokerUnavailable):
        await runs.count(name)


def _memory() -> int:
    """KiB that this process has in memory."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        unit = 1024 if sys.platform == "darwin" else 1
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit
    return pages * resource.getpagesize() // 1024
