"""A run as the parent of others: what it may start, and the start that comes of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import structlog

from callboard.errors import BadRequest, Forbidden, RunRefused, Unauthorized
from callboard.json_object import json_object
from callboard.runs.children import MAX_CHILDREN, MAX_DEPTH, group_runs, then_id
from callboard.runs.limits import require_key
from callboard.runs.scripts import GROUP_SECONDS
from callboard.runs.seal import Call
from callboard.runs.start import Start, Terms, milliseconds
from callboard.runs.waiting import LONGEST
from callboard.sans_io import Steps

from .arguments import checked_pair
from .reach import Reach

if TYPE_CHECKING:
    from callboard.sdk.action import Action

    from .attempt import Attempt

__all__ = ["Parent"]

PART = 100  # starts that are made before others have the event loop

_log = structlog.get_logger("callboard.worker")


class Parent:
    """That of one attempt. All raise `RunRefused`."""

    def __init__(self, reach: Reach, attempt: Attempt) -> None:
        self._reach = reach
        self._attempt = attempt
        self._started = 0  # runs

    def child(
        self, run_id: str, action: str, params: Any, seconds: float = 0.0, as_owner: bool = False
    ) -> Start:
        """One run, due in so many seconds."""
        terms = Terms(delay=milliseconds(seconds))
        with self._counted(1):
            return self._start_of(run_id, action, params, terms, as_owner)

    def group(
        self, group: str, calls: list[tuple[str, Any]], then: tuple[str, Any] | None
    ) -> Steps[list[Start]]:
        """Its runs, and at last what waits for them: if this run ends before it has started them
        all, nothing waits for ever."""
        joining = None if then is None else checked_pair(then, "then")
        size, starts = len(calls), []
        terms = Terms(group=group, size=size) if joining else Terms()
        with self._counted(size):
            ids = group_runs(group, size)
            for number, (run_id, call) in enumerate(zip(ids, calls, strict=True)):
                with _naming(f"call {number}"):
                    starts.append(self._start_of(run_id, *call, terms))
                if number % PART == PART - 1:
                    yield self._reach.pause()
            if joining is not None:
                with _naming("then"):
                    starts.append(self._joining(group, size, *joining))
        return starts

    def _joining(self, group: str, size: int, action: str, params: Any) -> Start:
        start = self._start_of(then_id(group), action, params, Terms(join=group, size=size))
        longest = GROUP_SECONDS + LONGEST  # a run of the group may wait as long
        call = replace(start.call, group=(group, size), expires=start.call.expires + longest)
        return replace(start, call=call)

    def _start_of(
        self, run_id: str, action: str, params: Any, terms: Terms, as_owner: bool = False
    ) -> Start:
        mine, name = self._attempt.call, getattr(action, "name", action)
        if not isinstance(name, str):
            raise BadRequest(f"start: an action's name, not {type(action).__name__}")
        if not isinstance(as_owner, bool):  # a text such as "false" would count as yes
            raise BadRequest(f"as_owner must be True or False, not {as_owner!r:.80}")
        if mine.depth >= MAX_DEPTH:
            raise BadRequest(
                f"Runs may start runs {MAX_DEPTH} deep, and this one is: does one start itself?"
            )
        caller = self._owner() if as_owner else mine.caller
        found = self._startable(name, caller)
        call = Call(
            caller=caller,
            claims={} if as_owner else mine.claims,
            jwt=None if as_owner else mine.jwt,
            params=json_object("params", params),
            scheduled=mine.scheduled or as_owner,
            parent=self._attempt.run_id,
            depth=mine.depth + 1,
        )
        if terms.delay:
            call = call.due_in(terms.delay / 1000)
        found.validate(call.params)
        require_key(found, call)
        return Start(run_id=run_id, action=found, call=call, terms=terms)

    def _startable(self, name: str, caller: str | None) -> Action[Any]:
        try:
            owner = self._reach.services.settings.owner_user_id
            return self._reach.services.registry.startable(name, caller, owner)
        except Unauthorized:
            raise Forbidden(
                f"Action {name!r} is for callers who are known, and this run has none: pass "
                "as_owner=True, or declare the action internal=True or anonymous=True"
            ) from None

    def _owner(self) -> str:
        owner = self._reach.services.settings.owner_user_id
        if owner is None:
            raise Forbidden("as_owner=True: there is no owner; set OWNER_USER_ID")
        return owner

    def log_as_owner(self, run_id: str, start: Start) -> None:
        """That it is started as the owner; ``run_id``: the run that came of it."""
        _log.info(
            "started as the owner",
            run_id=run_id, action=start.action.name, parent=self._attempt.run_id,
        )  # fmt: skip

    @contextmanager
    def _counted(self, more: int) -> Iterator[None]:
        """So many runs are started within; none, if one of them is refused."""
        if self._started + more > MAX_CHILDREN:
            raise BadRequest(f"A run starts at most {MAX_CHILDREN} runs")
        self._started += more
        try:
            yield
        except BaseException:
            self._started -= more
            raise


@contextmanager
def _naming(what: str) -> Iterator[None]:
    """A refusal within is one of this part of a `start_all`, with its own code."""
    try:
        yield
    except RunRefused as refusal:
        named = BadRequest(f"start_all: {what}: {refusal}")
        named.code = refusal.code
        raise named from None
