"""Kept steps: what a handler has done, in its run's record and found there by its name; and how it
ends its attempt where it waits for long.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, cast

from callboard.errors import BrokerUnavailable, ConfigurationError, ServiceUnavailable
from callboard.runs.commands import ClaimLost, Wait
from callboard.runs.kept import Kept, Kind
from callboard.sans_io import Steps

from ..tools.ordinals import current_step
from .attempt import Parked
from .lifecycle import HandlerStopped

if TYPE_CHECKING:
    from ..tools.tools import AsyncTools, Tools
    from .attempt import Attempt
    from .reach import Reach

__all__ = ["KeptSteps"]

BUSY_SECONDS = 0.01  # between two looks whether other tasks' steps are done

_UNITS = {"sleep": "sleeps", "signal": "waits"}


class KeptSteps:
    """Those of one attempt, for plain handlers and for async ones."""

    patience: float  # seconds of a wait that the handler goes through itself
    pause: Callable[[float], Any]  # a step
    looks: int  # that find no task in the middle of something, before the attempt ends

    def __init__(self, reach: Reach, attempt: Attempt, tools: Tools | AsyncTools) -> None:
        self._reach = reach
        self._attempt = attempt
        self._tools = tools
        self._parked: Wait | None = None
        self._waits: list[Wait] = []  # long ones that tasks are at now
        self._kept: dict[tuple[Kind, str], Kept] | None = None  # None: not looked at yet
        self._used: set[tuple[Kind, str]] = set()  # of this attempt
        self._numbers = itertools.count(attempt.claim.steps + 1)  # of what is kept next
        self._busy = 0  # steps, and short waits, that tasks are in the middle of

    def check(self) -> None:
        """Raise `Parked` if the handler waits, whatever it has made of that."""
        if self._parked is not None:
            raise Parked(self._parked)

    def remembered(self, error: ServiceUnavailable) -> ServiceUnavailable:
        """The error, with which the attempt ends."""
        return self._tools.remembered(error)

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

    def _wait(self, wait: Wait, longest: float = float("inf")) -> Steps[None]:
        """Go through the wait, or ``longest`` of it; one that is long ends the attempt, once no
        task is in the middle of a step. What other tasks wait for ends it as well."""
        if wait.left < self.patience:
            yield self.pause(min(wait.left, longest))
            return
        with self._waiting(wait):
            calm = 0 if self._busy else 1
            while calm < self.looks:
                yield self.pause(BUSY_SECONDS)
                calm = 0 if self._busy else calm + 1
            self._parked = self._parked or Wait.first_of(self._waits)
            self.check()

    @contextlib.contextmanager
    def _waiting(self, wait: Wait) -> Iterator[None]:
        self._waits.append(wait)
        self._busy -= 1
        try:
            yield
        finally:
            self._busy += 1
            self._waits.remove(wait)

    @property
    def _runs(self) -> Any:
        return self._reach.runs
