"""What a worker process stands on. Connections belong to one process and open on first use."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import redis
import structlog

from callboard.connections.mongodb import Store
from callboard.connections.redis import connect
from callboard.errors import BrokerUnavailable
from callboard.log.redaction import Redactor
from callboard.registry import Registry
from callboard.runs import message
from callboard.runs.format import FORMAT
from callboard.runs.message import Wakeup
from callboard.runs.seal import Sealer
from callboard.runs.signal_url import SignalUrls
from callboard.runs.store import Runs
from callboard.sdk.action import Action
from callboard.settings import PRIVATE_VARIABLES, Settings

from .hooks.around import Around
from .hooks.hook_loop import HookLoop
from .hooks.process import PlainResources
from .hooks.reports import Reports
from .lease.scoreboard import Scoreboard
from .lease.slots import Slots
from .runs.isolation import Isolation

if TYPE_CHECKING:
    from .runs.tracing import RunTracing

__all__ = ["Services"]

NEWER_PAUSE = 60.0  # seconds between two lines about what is left for a newer worker


class Services:
    """Settings, registry and the run records, for the main process and each child."""

    park_after: float  # seconds: a longer wait of an async handler ends its attempt
    progress_pause = 0.1  # seconds between two writes of a run's progress

    def __init__(
        self, settings: Settings, registry: Registry, tracing: RunTracing | None = None
    ) -> None:
        self.settings = settings
        self.registry = registry
        self.park_after = settings.park_after
        self.sealer = Sealer(settings.secret_keys)
        self.keys = settings.keys
        self.signal_urls = SignalUrls(settings.secret_keys, settings.public_url)
        self.store = Store.of(settings)
        #: of this start of the worker, behind its host's name; children inherit it
        self.worker_id = f"{_host()}.{uuid.uuid4().hex}"
        self.tracing = tracing
        self.state: object = None  # what the process hook of this process has yielded
        self.on_count: Callable[[str], object] | None = None  # instead of counting at once
        os.register_at_fork(after_in_child=partial(self.__dict__.pop, "runs", None))
        self._logged_until = 0.0  # time.monotonic seconds: of what is left for a newer worker

    @cached_property
    def runs(self) -> Runs:
        """The run records, over a connection of this process's own."""
        return Runs(self.connect(), self.sealer, self.keys)

    def connect(self) -> redis.Redis:
        """A new client."""
        return connect(self.settings)

    def holder(self, pid: int, number: int) -> str:
        """Who claims a run: this child of the worker, with so many runs in hand before.

        A run that comes to a child twice is another claim each time.
        """
        return f"{self.worker_id}:{pid}:{number}"

    def read(self, text: bytes) -> tuple[Wakeup, str] | None:
        """What a queue's message says, and its tag, if it is for an action of ours.

        Of any other, which is dropped and counted, nothing but its form has been looked at.
        """
        try:
            wakeup, tag = message.read(text) or (None, None)
        except message.Newer as newer:
            self.leave("message", newer.version)
            return None
        if wakeup and wakeup.task in self._tasks and self.sealer.is_signed(tag, *wakeup):
            return wakeup, cast(str, tag)
        task, run_id = wakeup[:2] if wakeup else (None, None)
        self.refuse("message without a valid signature", task, run_id)
        return None

    @cached_property
    def _tasks(self) -> Mapping[str, Action]:
        return {action.task: action for action in self.registry.actions.values()}

    def refuse(self, why: str, task: object, run_id: object) -> None:
        """Log and count a message that is dropped; nothing of its content is logged."""
        log = structlog.get_logger("callboard.worker")
        log.warning("refused", why=why, task=ascii(task)[:82], run_id=ascii(run_id)[:38])
        self.count("refused")

    def count(self, name: str) -> None:
        """Add one to a counter that all processes share, if the broker answers."""
        if self.on_count:
            self.on_count(name)
            return
        with contextlib.suppress(BrokerUnavailable):
            self.runs.count(name)

    def leave(self, what: str, version: int | None = None) -> None:
        """Log, once a minute at most, that a newer worker's run is left to it: the sweep keeps
        waking until one has come."""
        if time.monotonic() < self._logged_until:
            return
        self._logged_until = time.monotonic() + NEWER_PAUSE
        structlog.get_logger("callboard.worker").warning(
            "left for a newer worker: upgrade this one", what=what, version=version, known=FORMAT
        )

    def pass_on(self, wakeup: Wakeup) -> None:
        """Queue a wake-up where those of its action are: it came to the other kind of process,
        because the action has become `async def`, or `def`, since its run was accepted."""
        queue = self._tasks[wakeup.task].message_queue
        text = message.compose(queue, wakeup, self.sealer.sign(*wakeup))
        self.runs.put_back(self.keys.queue(queue), text.encode())

    @cached_property
    def scoreboard(self) -> Scoreboard:
        """What this worker's children execute; to be there before they are forked."""
        return Scoreboard(list(self.registry.actions))

    @cached_property
    def slots(self) -> Sequence[Slots]:
        """What its loop processes execute: none where no action is async."""
        actions, settings = self.registry.actions, self.settings
        wanted = any(action.is_async for action in actions.values())
        names, size = list(actions), settings.async_runs
        return [Slots(names, size) for _ in range(settings.async_processes if wanted else 0)]

    @cached_property
    def call(self) -> Callable[[Action, Any], object]:
        """`Action.run`, with the hooks around it if there are any."""
        hooks = self.registry.hooks.around
        return Around(hooks, lambda: self.hook_loop).call if hooks else Action.run

    @cached_property
    def hook_loop(self) -> HookLoop:
        """The loop of async hooks in a process of plain handlers."""
        return HookLoop()

    @cached_property
    def resources(self) -> PlainResources:
        """The process hook of a child of the worker."""
        hooks, hook_loop = self.registry.hooks, lambda: self.hook_loop
        return PlainResources(hooks, hook_loop, self.reports, lambda: self.scoreboard.closed)

    @cached_property
    def reports(self) -> Reports:
        """What processes tell of their process hook; to be there before they are forked."""
        return Reports()

    @cached_property
    def redactor(self) -> Redactor:
        """Takes the application's secrets out of what is kept of handlers' texts."""
        return Redactor(self.settings.secrets)

    @cached_property
    def isolation(self) -> Isolation:
        """What keeps one run's traces from the next; of the process that runs the handlers."""
        return Isolation()

    @cached_property
    def handler_env(self) -> Mapping[str, str]:
        """``ctx.env``: the environment without Callboard's own secrets."""
        return MappingProxyType(
            {k: v for k, v in os.environ.items() if not re.fullmatch(PRIVATE_VARIABLES, k)}
        )


def _host() -> str:
    """This machine's name, of letters that a holder's name may have."""
    return re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:64]
