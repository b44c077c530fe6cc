"""Memory: what a handler remembers from one start to the next: steps, sleeps and signals.

All of it is kept in the run's record before the handler goes on, and found there by its name when
the handler is started again. Where a wait is long the attempt ends (`Parked`), and the handler is
started again when it is over.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar
from uuid import UUID, uuid5

from callboard import strict_json
from callboard.errors import InvalidData, ServiceUnavailable
from callboard.runs.commands import Wait
from callboard.runs.kept import Kept, value_text
from callboard.runs.record import is_run_id
from callboard.runs.signals import open_signal
from callboard.runs.waiting import LONGEST
from callboard.sans_io import Steps, awaited, plain
from callboard.sdk.names import signal_name, step_name
from callboard.sdk.results import ActionResult, StopHandler, fail, ok

from ..tools.ordinals import within_step
from .kept_steps import KeptSteps
from .step_arguments import checked_due, checked_function, checked_milliseconds, checked_value

if TYPE_CHECKING:
    from callboard.sdk.retry import Retry

    from ..tools.tools import AsyncTools
    from .attempt import Attempt
    from .reach import Reach

__all__ = ["AsyncMemory", "Memory"]

SHORT_SECONDS = 0.005  # that a plain handler waits itself: while it does, nothing else can run
_KEYS = UUID("8b1f0c52-6f0e-5b0a-8d6f-2b1f6a0f9c33")  # the namespace of steps' keys


P = ParamSpec("P")
M = TypeVar("M", bound=KeptSteps)
R = TypeVar("R")


def _insistent(
    method: Callable[Concatenate[M, P], Steps[R]],
) -> Callable[Concatenate[M, P], Steps[R]]:
    """Where the broker is away the attempt ends, whatever the handler makes of that: what it
    would do then, it has perhaps done already."""

    @wraps(method)
    def call(self: M, /, *args: P.args, **kwargs: P.kwargs) -> Steps[R]:
        try:
            return (yield from method(self, *args, **kwargs))
        except ServiceUnavailable as error:
            raise self.remembered(error) from None

    return call


class _Memory(KeptSteps):
    """That of one attempt."""

    def step_key(self, name: str) -> str:
        """A key of the step, equal at every attempt."""
        return str(uuid5(_KEYS, f"{self._attempt.run_id}\n{step_name('step', name)}"))

    # What handlers call

    @_insistent
    def _step(
        self, name: str, function: Callable[..., Any], args: Sequence[Any], retry: Retry | None
    ) -> Steps[Any]:
        name = step_name("step", name)
        checked_function(f"step {name!r}", function, retry)
        with self._working():
            kept = yield from self._begin("step", name)
            if kept is not None:
                return kept.value
            started = _milliseconds()
            value = yield from self._called(name, function, args, retry)
            text = checked_value(f"step {name!r}", value)
            value, ended = strict_json.loads(text), _milliseconds()
            kept = Kept(kind="step", name=name, value=value, started=started, ended=ended)
            yield from self._keep(kept, text=text)
            return value

    @_insistent
    def _sleep(self, name: str, seconds: float | None, until: datetime | None) -> Steps[None]:
        name = step_name("sleep", name)
        due = checked_due(f"sleep {name!r:.80}", seconds, until)
        with self._working():
            kept = yield from self._begin("sleep", name)
            now = yield self._runs.now()
            if kept is None:
                kept = Kept(kind="sleep", name=name, value=due(now), started=now, ended=now)
                if kept.value > now:
                    yield from self._keep(kept)
            left = (kept.value - now) / 1000
            if left > 0:
                yield from self._wait(Wait(kind="time", name=name, due=kept.value, left=left))

    @_insistent
    def _wait_for_signal(self, name: str, timeout: float | None) -> Steps[Any]:
        wanted = LONGEST if timeout is None else timeout
        name = signal_name(name)
        most = checked_milliseconds(f"wait_for_signal {name!r:.80}", wanted)
        with self._working():
            known = yield from self._begin("signal", name)
            if known is not None:
                return _value(known)
            return (yield from self._signal_or_end(name, most))

    def _signal_or_end(self, name: str, most: int) -> Steps[Any]:
        """The signal, or None after so many milliseconds."""
        now, asked = (yield self._runs.now()), time.monotonic()
        begun = self._begun(name)
        wait = begun or Kept(kind="wait", name=name, value=now + most, started=now, ended=now)
        for pause in _pauses():
            passed = now + round((time.monotonic() - asked) * 1000)
            come = yield self._runs.signal_sent(self._attempt.run_id, name)
            if come is not None or passed >= wait.value:
                return (yield from self._settled(name, come, wait.started))
            if begun is None:
                yield from self._keep(wait)
                begun = wait
            left = (wait.value - passed) / 1000
            yield from self._wait(Wait(kind="signal", name=name, due=wait.value, left=left), pause)
        raise AssertionError("unreachable")

    @_insistent
    def _signal(self, run_id: str, name: str, data: Any) -> Steps[ActionResult[Any]]:
        self.check()
        try:
            name, value = signal_name(name), strict_json.loads(value_text("signal", data))
        except InvalidData as error:
            return fail(str(error), error.code)
        known = (yield self._runs.actions([run_id])) if is_run_id(run_id) else {}
        action = known.get(run_id, "")
        may = self._reach.services.registry.actions.get(action)
        if may is None or may.transaction:
            return fail(f"No run {run_id!r:.80} that can wait for a signal", "not_found")
        state = yield self._runs.signal(run_id, action, name, value)
        if state in ("kept", "known"):
            return ok({"accepted": state == "kept"})
        why = "has ended" if state == "ended" else "has got too many signals"
        return fail(f"Run {run_id} {why}", "conflict")

    # How a step is done and kept

    def _called(
        self, name: str, function: Callable[..., Any], args: Sequence[Any], retry: Retry | None
    ) -> Steps[Any]:
        """What the function answers, tried again as ``retry`` says."""
        for number in itertools.count(1):
            try:
                with within_step(name):
                    return (yield function(*args))
            except StopHandler:
                raise
            except Exception as error:
                covered = retry is not None and retry.covers(error) and not self._tools.lost
                if retry is None or not covered or number >= retry.max_attempts:
                    raise
                delay = retry.delay(number)
            yield self.pause(delay)
        raise AssertionError("unreachable")

    def _settled(self, name: str, come: bytes | None, started: int) -> Steps[Any]:
        """The signal that has come, or None: kept, so that it stays so."""
        ended = _milliseconds()
        if come is None:
            over = Kept(kind="signal", name=name, value=[], started=started, ended=ended)
            come = yield from self._keep(over, unless=name)
        if come is None:
            return None
        attempt = self._attempt
        value = open_signal(
            self._reach.services.sealer, attempt.run_id, attempt.action.name, name, come
        )
        yield from self._keep(
            Kept(kind="signal", name=name, value=[value], started=started, ended=ended)
        )
        return value

    def _begun(self, name: str) -> Kept | None:
        """That the signal is waited for since then, and until when."""
        return (self._kept or {}).get(("wait", name))


class Memory(_Memory):
    """Of a plain handler."""

    patience = SHORT_SECONDS
    looks = 1  # at once, mostly: while it waits nothing else can run
    pause = staticmethod(time.sleep)

    step = plain(_Memory._step)
    sleep = plain(_Memory._sleep)
    wait_for_signal = plain(_Memory._wait_for_signal)
    signal = plain(_Memory._signal)


class AsyncMemory(_Memory):
    """Of an async handler: as long as CALLBOARD_PARK_AFTER it waits itself."""

    looks = 3  # its other tasks go on to their next step, or wait, meanwhile
    pause = staticmethod(asyncio.sleep)

    step = awaited(_Memory._step)
    sleep = awaited(_Memory._sleep)
    wait_for_signal = awaited(_Memory._wait_for_signal)
    signal = awaited(_Memory._signal)

    def __init__(self, reach: Reach, attempt: Attempt, tools: AsyncTools) -> None:
        super().__init__(reach, attempt, tools)
        self.patience = reach.services.park_after

    def check(self) -> None:
        """`KeptSteps.check`; what a task of the handler's then ends with is no mistake of its."""
        if self._parked is not None and (task := asyncio.current_task()):
            task.add_done_callback(_look_at)
        super().check()


def _value(kept: Kept) -> Any:
    """Of a signal; None where none came in time."""
    return kept.value[0] if kept.value else None


def _look_at(task: asyncio.Task[Any]) -> None:
    """Somebody has seen how it ended: asyncio need not tell that nobody has."""
    if not task.cancelled():
        task.exception()


def _pauses() -> Iterator[float]:
    """Seconds between two looks for a signal: soon at first."""
    pause = 0.01
    while True:
        yield pause
        pause = min(pause * 1.5, 0.2)


def _milliseconds() -> int:
    return round(time.time() * 1000)
