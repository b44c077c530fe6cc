"""Memory: what a handler remembers from one start to the next: steps, sleeps and signals.

All of it is kept in the run's record before the handler goes on, and found there by its name when
the handler is started again. Where a wait is long the attempt ends (`Parked`), and the handler is
started again when it is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID, uuid5

from callboard import strict_json
from callboard.errors import BrokerUnavailable, ConfigurationError, InvalidData
from callboard.runs.commands import ClaimLost, Wait
from callboard.runs.kept import Kept, Kind, value_text
from callboard.runs.signals import open_signal
from callboard.runs.waiting import LONGEST
from callboard.sans_io import Steps, awaited, plain
from callboard.sdk.names import signal_name, step_name
from callboard.sdk.results import ActionResult, StopHandler, fail, ok

from ..tools.ordinals import current_step, within_step
from .attempt import Parked
from .lifecycle import HandlerStopped
from .step_arguments import checked_due, checked_milliseconds, checked_value

if TYPE_CHECKING:
    from callboard.sdk.retry import Retry

    from ..tools.tools import AsyncTools, Tools
    from .attempt import Attempt
    from .reach import Reach

__all__ = ["AsyncMemory", "Memory"]

SHORT_SECONDS = 0.005  # that a plain handler waits itself: while it does, nothing else can run
BUSY_SECONDS = 0.02  # between two looks whether other tasks' steps are done
_KEYS = UUID("8b1f0c52-6f0e-5b0a-8d6f-2b1f6a0f9c33")  # the namespace of steps' keys

_UNITS = {"sleep": "sleeps", "signal": "waits"}


class _Memory:
    """That of one attempt."""

    patience: float  # seconds of a wait that the handler goes through itself
    pause: Callable[[float], Any]  # a step

    def __init__(self, reach: Reach, attempt: Attempt, tools: Tools | AsyncTools) -> None:
        self._reach = reach
        self._attempt = attempt
        self._tools = tools
        self._parked: Wait | None = None
        self._kept: dict[tuple[Kind, str], Kept] | None = None  # None: not looked at yet
        self._used: set[tuple[Kind, str]] = set()  # of this attempt
        self._numbers = itertools.count(attempt.claim.steps + 1)  # of what is kept next
        self._busy = 0  # steps whose functions run now

    def check(self) -> None:
        """Raise `Parked` if the handler waits, whatever it has made of that."""
        if self._parked is not None:
            raise Parked(self._parked)

    def step_key(self, name: str) -> str:
        """A key of the step, equal at every attempt."""
        return str(uuid5(_KEYS, f"{self._attempt.run_id}\n{step_name('step', name)}"))

    # What handlers call

    def _step(
        self, name: str, function: Callable[..., Any], args: Sequence[Any], retry: Retry | None
    ) -> Steps[Any]:
        kept = yield from self._begin("step", step_name("step", name))
        if kept is not None:
            return kept.value
        started = _milliseconds()
        with self._working():
            value = yield from self._called(name, function, args, retry)
            text = checked_value(f"step {name!r}", value)
            value, ended = strict_json.loads(text), _milliseconds()
            kept = Kept(kind="step", name=name, value=value, started=started, ended=ended)
            yield from self._keep(kept, text=text)
        return value

    def _sleep(self, name: str, seconds: float | None, until: datetime | None) -> Steps[None]:
        due = checked_due(f"sleep {name!r:.80}", seconds, until)
        kept = yield from self._begin("sleep", step_name("sleep", name))
        now = yield self._runs.now()
        if kept is None:
            kept = Kept(kind="sleep", name=name, value=due(now), started=now, ended=now)
            if kept.value > now:
                yield from self._keep(kept)
        left = (kept.value - now) / 1000
        if left > 0:
            yield from self._wait(Wait(kind="time", name=name, due=kept.value, left=left))

    def _wait_for_signal(self, name: str, timeout: float | None) -> Steps[Any]:
        wanted = LONGEST if timeout is None else timeout
        most = checked_milliseconds(f"wait_for_signal {name!r:.80}", wanted)
        known = yield from self._begin("signal", signal_name(name))
        if known is not None:
            return _value(known)
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

    def _signal(self, run_id: str, name: str, data: Any) -> Steps[ActionResult[Any]]:
        self.check()
        try:
            name, value = signal_name(name), strict_json.loads(value_text("signal", data))
        except InvalidData as error:
            return fail(str(error), error.code)
        action = (yield self._runs.actions([run_id])).get(run_id)
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

    def _keep(
        self, kept: Kept, *, text: bytes | None = None, unless: str = ""
    ) -> Steps[bytes | None]:
        """Keep it, or answer the signal ``unless`` that has come. ``text``: of the value.

        It is tried while the broker is away and there is time: what was done would be done again.
        """
        attempt, number = self._attempt, next(self._numbers)
        content = kept.to_json(text)
        while True:
            try:
                come = yield self._runs.keep(
                    attempt.run_id, attempt.action.name, attempt.holder, number, content, unless
                )
                return cast("bytes | None", come)
            except ClaimLost:
                raise HandlerStopped from None
            except BrokerUnavailable:
                if time.monotonic() >= attempt.deadline:
                    raise
            yield self.pause(0.1)

    def _begin(self, kind: Kind, name: str) -> Steps[Kept | None]:
        """What is kept of it; raises where it may not be called."""
        self.check()
        self._refuse(kind, name)
        self._used.add((kind, name))
        if self._kept is None:
            kept = yield from self._load()
            self._kept = {(one.kind, one.name): one for one in kept}
        return self._kept.get((kind, name))

    def _load(self) -> Steps[list[Kept]]:
        attempt, count = self._attempt, self._attempt.claim.steps
        if not count:
            return []
        kept: list[Kept] = yield self._runs.steps(attempt.run_id, attempt.action.name, count)
        return kept

    def _refuse(self, kind: Kind, name: str) -> None:
        """Raise where it may not be called: `ConfigurationError`."""
        action, what = self._attempt.action, f"{kind} {name!r}"
        if self._tools.ended:
            raise RuntimeError("This context is that of a run that has ended")
        if self._attempt.scope:
            raise ConfigurationError(
                f"Action {action.name!r}: {what} in a hook that is told of an end. What is kept "
                "belongs to the handler."
            )
        if action.transaction or self._tools.in_transaction:
            raise ConfigurationError(
                f"Action {action.name!r}: {what} inside a transaction, which may be rolled back "
                "and tried again, and must not wait. Call it before or after "
                "`ctx.tools.transaction()`, in an action without transaction=True."
            )
        if kind in _UNITS and (step := current_step()):
            raise ConfigurationError(
                f"Action {action.name!r}: step {step!r} {_UNITS[kind]} ({name!r}). A step must not "
                "wait: call it in the handler, between two steps."
            )
        if (kind, name) in self._used:
            raise ConfigurationError(
                f"Action {action.name!r}: {what} for the second time in one attempt. What is kept "
                f"is found by its name: give each its own, such as {f'{name}-2'!r}."
            )

    @contextlib.contextmanager
    def _working(self) -> Iterator[None]:
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1

    # How a handler waits

    def _wait(self, wait: Wait, longest: float = float("inf")) -> Steps[None]:
        """Go through the wait, or ``longest`` of it; one that is long ends the attempt, once no
        step is in the middle of what it does."""
        if wait.left < self.patience:
            yield self.pause(min(wait.left, longest))
            return
        while self._busy:
            yield self.pause(BUSY_SECONDS)
        self.check()
        self._parked = wait
        raise Parked(wait)

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

    @property
    def _runs(self) -> Any:
        return self._reach.runs


class Memory(_Memory):
    """Of a plain handler."""

    patience = SHORT_SECONDS
    pause = staticmethod(time.sleep)

    step = plain(_Memory._step)
    sleep = plain(_Memory._sleep)
    wait_for_signal = plain(_Memory._wait_for_signal)
    signal = plain(_Memory._signal)


class AsyncMemory(_Memory):
    """Of an async handler: as long as CALLBOARD_PARK_AFTER it waits itself."""

    pause = staticmethod(asyncio.sleep)

    step = awaited(_Memory._step)
    sleep = awaited(_Memory._sleep)
    wait_for_signal = awaited(_Memory._wait_for_signal)
    signal = awaited(_Memory._signal)

    def __init__(self, reach: Reach, attempt: Attempt, tools: AsyncTools) -> None:
        super().__init__(reach, attempt, tools)
        self.patience = reach.services.park_after


def _value(kept: Kept) -> Any:
    """Of a signal; None where none came in time."""
    return kept.value[0] if kept.value else None


def _pauses() -> Iterator[float]:
    """Seconds between two looks for a signal: soon at first."""
    pause = 0.01
    while True:
        yield pause
        pause = min(pause * 1.5, 0.2)


def _milliseconds() -> int:
    return round(time.time() * 1000)
