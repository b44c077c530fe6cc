"""Starts: what ``ctx.start`` and its like do, for plain handlers and for async ones.

Within a transaction a start is a row of the outbox that commits with it, and is published at once
after that. Outside, it is accepted at once. What is due in more than an hour, or meets a full
queue, is a row besides. A rerun of the parent starts nothing twice: the ids are the same, and what
has left Redis is found in the history.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from callboard.errors import (
    BadRequest,
    KeyReused,
    LimitKeyFailed,
    QueueFull,
    RunRefused,
    ServiceUnavailable,
)
from callboard.runs.children import child_id, keyed_id
from callboard.runs.idempotency import scoped
from callboard.runs.outbox import Row, is_elsewhere
from callboard.runs.start import Start
from callboard.runs.store import Accepted
from callboard.sans_io import Steps, awaited, plain
from callboard.sdk.results import ActionResult, fail, ok
from callboard.types import Started, StartedAll

from ..tools.ordinals import Ordinals
from .arguments import checked_delay, checked_key, checked_moment, checked_pairs, within
from .parent import Parent
from .reach import Reach
from .results import AsyncResults, Results
from .timetable import AsyncTimetable, Timetable

if TYPE_CHECKING:
    from ..tools.tools import AsyncTools, Tools
    from ..tools.transaction import Transaction
    from .attempt import Attempt

__all__ = ["AsyncStarts", "Starts"]

AT_ONCE = 1_000  # starts that go to the broker before anything else is done
WRITTEN_AT_ONCE = 250  # rows that go to the database in one command
PUBLISH_SECONDS = 60.0  # at most, after a commit: then it is left to the publisher, which looks

KEY_REUSED = "key: it was used with other params; take another one"

_log = structlog.get_logger("callboard.worker")


class _Starts:
    """The starts of one attempt."""

    def __init__(self, reach: Reach, attempt: Attempt, tools: Tools | AsyncTools) -> None:
        self._reach = reach
        self._attempt = attempt
        self._tools = tools
        self._parent = Parent(reach, attempt)
        self._calls = Ordinals()  # of `start` and `start_all`

    # What handlers call

    def _start(
        self, action: str, params: Any, options: Mapping[str, Any]
    ) -> Steps[ActionResult[Started]]:
        run_id = child_id(self._attempt.ids, self._calls.next("start"))
        try:
            row = yield from self._row(run_id, action, params, **options)
        except RunRefused as refusal:
            return fail(str(refusal), refusal.code)
        answer: ActionResult[list[str]] = yield self._tools.do(partial(self._place, [row]))
        if not answer.success:
            return answer
        [run_id] = answer.data
        if options["as_owner"]:
            self._parent.log_as_owner(run_id, row.start)
        return ok({"runId": run_id})

    def _start_all(
        self, calls: Sequence[tuple[str, Any]], then: tuple[str, Any] | None
    ) -> Steps[ActionResult[StartedAll]]:
        group = child_id(self._attempt.ids, self._calls.next("start"))
        try:
            starts = yield from self._parent.group(group, checked_pairs(calls), then)
        except RunRefused as refusal:
            return fail(str(refusal), refusal.code)
        answer: ActionResult[list[str]] = yield self._tools.do(
            partial(self._place, [Row(start=start) for start in starts])
        )
        if not answer.success:
            return answer
        ids = answer.data
        if then is None:
            return ok({"runIds": ids, "thenRunId": None})
        return ok({"runIds": ids[:-1], "thenRunId": ids[-1]})

    def _row(
        self,
        run_id: str,
        action: str,
        params: Any,
        *,
        delay: float | None,
        at: datetime | None,
        key: str | None,
        as_owner: bool,
    ) -> Steps[Row]:
        """Raises `RunRefused`."""
        seconds, due = checked_delay(delay), checked_moment(at)
        if delay is not None and at is not None:
            raise BadRequest("start: give either delay or at")
        if due is not None or seconds or key is not None:
            now = yield self._reach.clock.passed()
            due = now + timedelta(seconds=seconds) if due is None else due
            seconds = within((due - now).total_seconds())
        start = self._parent.child(run_id, action, params, seconds, as_owner)
        if key is not None and due is not None:
            caller = f"run\0{start.call.caller or ''}"  # a client's keys are others
            under = scoped(checked_key(key), caller, start.action.name, start.call.params)
            start = replace(start, run_id=keyed_id(under, due), idempotency=under)
        return Row(start=start, due=due if seconds > 0 else None)

    # How it is started

    def _place(
        self, rows: Sequence[Row], transaction: Transaction | None
    ) -> Steps[ActionResult[list[str]]]:
        """Start these, or have them started when the transaction commits; their ids."""
        places, most = self._accept, AT_ONCE
        if transaction is not None:
            places, most = partial(self._write, transaction), WRITTEN_AT_ONCE
        ids = []
        for first in range(0, len(rows), most):
            try:
                ids += yield from places(rows[first : first + most])
            except RunRefused as refusal:
                return fail(str(refusal), refusal.code)
        return ok(ids)

    def _write(self, transaction: Transaction, rows: Sequence[Row]) -> Steps[list[str]]:
        """Rows of the outbox, that commit with the transaction."""
        ids, fresh = [], []
        for row in rows:
            known = yield from self._keyed(transaction, row.start)
            ids.append(known or row.start.run_id)
            fresh += [] if known else [row]
        if fresh:
            yield self._reach.outbox.put(fresh, transaction.session)
            made = time.monotonic()
            transaction.committed.append(partial(self._publish, fresh, made))
        return ids

    def _keyed(self, transaction: Transaction, start: Start) -> Steps[str | None]:
        """The run that the start's key leads to already, be it in this transaction; raises
        `KeyReused`."""
        if start.idempotency is None:
            return None
        key, digest = start.idempotency
        known = transaction.keys.get(key) or (yield self._reach.runs.keyed(key))
        if known and known[1] != digest:
            raise KeyReused(KEY_REUSED)
        transaction.keys[key] = known or (start.run_id, digest)
        return known and str(known[0])

    def _accept(self, rows: Sequence[Row]) -> Steps[list[str]]:
        """Start them now. A key may lead to another run."""
        fresh = yield from self._new(rows)
        if parked := [row for row in fresh if row.start.terms.is_parked]:
            yield self._reach.outbox.put(parked)
        answers = yield from self._accepted(fresh)
        if elsewhere := _elsewhere(parked, answers):
            yield self._reach.outbox.drop(elsewhere)
        if full := [row for row in fresh if isinstance(answers[row.start.run_id], QueueFull)]:
            yield self._reach.outbox.put(full)
        return [_settled(row.start.run_id, answers) for row in rows]

    def _accepted(
        self, rows: Sequence[Row], earlier: float = 0.0
    ) -> Steps[dict[str, Accepted | RunRefused]]:
        """What came of each. ``earlier``: seconds since they were made."""
        starts = [_after(row.start, earlier) for row in rows]
        limits = self._reach.services.settings.of_accepting
        answers = (yield self._reach.runs.accept_many(starts, **limits)) if starts else []
        return {s.run_id: answer for s, answer in zip(starts, answers, strict=True)}

    def _new(self, rows: Sequence[Row]) -> Steps[list[Row]]:
        """Those that an earlier attempt has not started."""
        if self._attempt.claim.is_first:
            return list(rows)
        ids = [row.start.run_id for row in rows]
        known = yield self._reach.runs.present(ids)
        ended = yield self._reach.outbox.ended([run_id for run_id in ids if run_id not in known])
        return [row for row in rows if row.start.run_id not in known | ended]

    def _published(self, rows: Sequence[Row], made: float) -> Steps[None]:
        """The transaction has committed. What is not done now, a worker's publisher does."""
        earlier, services = time.monotonic() - made, self._reach.services
        if earlier > min(PUBLISH_SECONDS, services.settings.result_ttl / 2):
            return  # another may have published it, and its run may have left Redis already
        try:
            fresh = yield from self._new(rows)
            answers = yield from self._accepted(fresh, earlier)
            done = [
                row.start.run_id
                for row in rows
                if not row.start.terms.is_parked
                and not isinstance(answers.get(row.start.run_id), QueueFull | LimitKeyFailed)
            ]
            yield self._reach.outbox.drop([*done, *_elsewhere(rows, answers)])
        except ServiceUnavailable as error:
            _log.warning("what was committed is published later", why=str(error))

    _publish: Callable[..., Any]


class Starts(_Starts):
    """For plain handlers."""

    start = plain(_Starts._start)
    start_all = plain(_Starts._start_all)
    _publish = plain(_Starts._published)

    def timetable(self) -> Timetable:
        """Schedules that start runs."""
        return Timetable(self._reach, self._attempt, self._tools)

    def results(self) -> Iterator[dict[str, Any]]:
        """The ends of the group's runs."""
        return Results(self._reach, self._attempt).results()


class AsyncStarts(_Starts):
    """For async handlers."""

    start = awaited(_Starts._start)
    start_all = awaited(_Starts._start_all)
    _publish = awaited(_Starts._published)

    def timetable(self) -> AsyncTimetable:
        """Schedules that start runs."""
        return AsyncTimetable(self._reach, self._attempt, self._tools)

    def results(self) -> AsyncIterator[dict[str, Any]]:
        """The ends of the group's runs."""
        return AsyncResults(self._reach, self._attempt).results()

    async def result(self, run_id: str, timeout: float | None) -> ActionResult:
        """The result of a run once it has ended."""
        return await AsyncResults(self._reach, self._attempt).result(run_id, timeout)


def _after(start: Start, seconds: float) -> Start:
    """The start, so much later."""
    if not start.terms.delay or not seconds:
        return start
    left = max(start.terms.delay - int(seconds * 1000), 0)
    return replace(start, terms=replace(start.terms, delay=left))


def _elsewhere(rows: Sequence[Row], answers: Mapping[str, Accepted | RunRefused]) -> list[str]:
    """Those whose key led to another run, or was used with other params."""
    ids = [row.start.run_id for row in rows]
    return [run_id for run_id in ids if is_elsewhere(run_id, answers.get(run_id))]


def _settled(run_id: str, answers: Mapping[str, Accepted | RunRefused]) -> str:
    """The id of the run that came of a start; what a queue had no room for comes later."""
    answer = answers.get(run_id)
    if isinstance(answer, KeyReused):
        raise KeyReused(KEY_REUSED)
    if isinstance(answer, RunRefused) and not isinstance(answer, QueueFull):
        raise answer
    return answer.run_id if isinstance(answer, Accepted) else run_id
