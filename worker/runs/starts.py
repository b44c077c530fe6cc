"""Starts: what ``ctx.start`` and its like do, for plain handlers and for async ones.

Within a transaction a start is a row of the outbox that commits with it, and is published at once
after that. Outside, it is accepted at once. What is due in more than an hour, or meets a full
queue, is a row besides. A rerun of the parent starts nothing twice: the ids are the same, and what
has left Redis is found in the history.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from callboard.clock import AsyncDatabaseClock, DatabaseClock
from callboard.errors import (
    BadRequest,
    Forbidden,
    KeyReused,
    QueueFull,
    RunRefused,
    ServiceUnavailable,
    Unauthorized,
)
from callboard.json_object import json_object
from callboard.runs.children import (
    MAX_CHILDREN,
    MAX_DEPTH,
    child_id,
    group_runs,
    keyed_id,
    then_id,
)
from callboard.runs.ends import AsyncPastEnds, End, PastEnds
from callboard.runs.idempotency import scoped
from callboard.runs.outbox import AsyncOutbox, Outbox, Row
from callboard.runs.outcome import Outcome
from callboard.runs.scripts import GROUP_SECONDS
from callboard.runs.seal import Call
from callboard.runs.start import Start, Terms
from callboard.runs.store import Accepted
from callboard.runs.waiting import LONGEST
from callboard.sans_io import Steps, arun, awaited, plain, run
from callboard.sdk.results import ActionResult, fail, ok

if TYPE_CHECKING:
    from callboard.connections.mongodb import AsyncStore
    from callboard.sdk.action import Action

    from ..services import Services
    from ..tools.tools import AsyncTools, Tools
    from ..tools.transaction import Transaction
    from .attempt import Attempt

__all__ = ["AsyncStarts", "Starts"]

PACKET = 250  # starts that go to the broker, or the database, at once
PAGE = 100  # ends of runs that are read at once
PUBLISH_SECONDS = 60.0  # after a commit: then it is left to the publisher, which looks first

KEY_REUSED = "key: it was used with other params; take another one"

Answer = ActionResult[dict[str, Any]]

_log = structlog.get_logger("callboard.worker")


class Broker(Protocol):
    """Of `callboard.runs.store.Runs`, what is needed here; each a step."""

    def accept_many(self, starts: Sequence[Start], *, max_queue: int, result_ttl: int) -> Any:
        """Accept each: what came of it."""

    def keyed(self, key: str) -> Any:
        """The run of an idempotency key, and its digest."""

    def ends(self, run_ids: Sequence[str]) -> Any:
        """How these runs stand."""

    def present(self, run_ids: Sequence[str]) -> Any:
        """Those that have a record."""


class _Starts:
    """The starts of one attempt."""

    def __init__(
        self,
        services: Services,
        attempt: Attempt,
        tools: Tools | AsyncTools,
        runs: Broker | None = None,
        store: AsyncStore | None = None,
    ) -> None:
        """``runs`` and ``store``: those of the event loop, of an async handler."""
        self._services = services
        self._attempt = attempt
        self._tools = tools
        self._loops = runs
        self._store = store
        self._calls = 0  # of `start` and `start_all`
        self._started = 0  # runs

    # What handlers call

    def _start(self, action: str, params: Any, options: Mapping[str, Any]) -> Steps[Answer]:
        self._calls += 1
        run_id = child_id(self._attempt.run_id, self._calls)
        try:
            self._count(1)
            row = yield from self._row(run_id, action, params, **options)
        except RunRefused as refusal:
            return fail(str(refusal))
        answer: Answer = yield self._tools.do(partial(self._place, [row]))
        return answer if not answer.success else ok({"runId": answer.data["runIds"][0]})

    def _start_all(
        self, calls: Sequence[tuple[str, Any]], then: tuple[str, Any] | None
    ) -> Steps[Answer]:
        self._calls += 1
        group = child_id(self._attempt.run_id, self._calls)
        try:
            rows = self._group(group, _pairs(calls), then)
        except RunRefused as refusal:
            return fail(str(refusal))
        answer: Answer = yield self._tools.do(partial(self._place, rows))
        if not answer.success:
            return answer
        ids = answer.data["runIds"]
        if then is None:
            return ok({"runIds": ids, "thenRunId": None})
        return ok({"runIds": ids[1:], "thenRunId": ids[0]})

    # What is to be started

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
        seconds, due = _delay(delay), _moment(at)
        if delay is not None and at is not None:
            raise BadRequest("start: give either delay or at")
        if due is not None or seconds or key is not None:
            now = yield self._clock()
            due = now + timedelta(seconds=seconds) if due is None else due
            seconds = _within((due - now).total_seconds())
        start = self._start_of(run_id, action, params, seconds, as_owner)
        if key is not None and due is not None:
            caller = f"run\0{start.call.caller or ''}"  # a client's keys are others
            under = scoped(_key(key), caller, start.action.name, start.call.params)
            start = replace(start, run_id=keyed_id(under, due), idempotency=under)
        return Row(start=start, due=due if seconds > 0 else None)

    def _group(
        self, group: str, calls: list[tuple[str, Any]], then: tuple[str, Any] | None
    ) -> list[Row]:
        """What waits for the group first, then its runs."""
        size = len(calls)
        self._count(size)
        terms = Terms(group=group, size=size) if then else Terms()
        ids = group_runs(group, size)
        starts = []
        for number, (action, params) in enumerate(calls):
            try:
                start = self._start_of(ids[number], action, params)
            except RunRefused as refusal:
                raise BadRequest(f"start_all: call {number}: {refusal}") from None
            starts.append(replace(start, terms=terms))
        if then is not None:
            try:
                starts.insert(0, self._joining(group, size, *_pair(then)))
            except RunRefused as refusal:
                raise BadRequest(f"start_all: then: {refusal}") from None
        return [Row(start=start) for start in starts]

    def _joining(self, group: str, size: int, action: str, params: Any) -> Start:
        start = self._start_of(then_id(group), action, params)
        call = replace(start.call, group=(group, size), expires=start.call.expires + GROUP_SECONDS)
        return replace(start, call=call, terms=Terms(join=group, size=size))

    def _start_of(
        self, run_id: str, action: str, params: Any, seconds: float = 0.0, as_owner: bool = False
    ) -> Start:
        """Raises `RunRefused`."""
        mine, name = self._attempt.call, getattr(action, "name", action)
        if not isinstance(name, str):
            raise BadRequest(f"start: an action's name, not {type(action).__name__}")
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
        ).due_in(seconds)
        found.validate(call.params)
        if as_owner:
            _log.info("started as the owner", run_id=run_id, action=name, parent=call.parent)
        return Start(
            run_id=run_id, action=found, call=call, terms=Terms(delay=round(seconds * 1000))
        )

    def _startable(self, name: str, caller: str | None) -> Action[Any]:
        try:
            owner = self._services.settings.owner_user_id
            return self._services.registry.startable(name, caller, owner)
        except Unauthorized:
            raise Forbidden(
                f"Action {name!r} is for callers who are known, and this run has none: pass "
                "as_owner=True, or declare the action internal=True or anonymous=True"
            ) from None

    def _owner(self) -> str:
        owner = self._services.settings.owner_user_id
        if owner is None:
            raise Forbidden("as_owner=True: there is no owner; set OWNER_USER_ID")
        return owner

    def _count(self, more: int) -> None:
        if self._started + more > MAX_CHILDREN:
            raise BadRequest(f"A run starts at most {MAX_CHILDREN} runs")
        self._started += more

    # How it is started

    def _place(self, rows: Sequence[Row], transaction: Transaction | None) -> Steps[Answer]:
        """Start these, or have them started when the transaction commits; their ids."""
        places = self._accept if transaction is None else partial(self._write, transaction)
        ids = []
        for packet in _packets(rows):
            try:
                ids += yield from places(packet)
            except RunRefused as refusal:
                return fail(str(refusal))
        return ok({"runIds": ids})

    def _write(self, transaction: Transaction, rows: Sequence[Row]) -> Steps[list[str]]:
        """Rows of the outbox, that commit with the transaction."""
        ids, fresh = [], []
        for row in rows:
            known = yield from self._keyed(row.start)
            ids.append(known or row.start.run_id)
            fresh += [] if known else [row]
        if fresh:
            yield self._outbox.put(fresh, transaction.session)
            made = time.monotonic()
            transaction.committed.append(partial(self._publish, fresh, made))
        return ids

    def _keyed(self, start: Start) -> Steps[str | None]:
        """The run that the start's key leads to already; raises `KeyReused`."""
        if start.idempotency is None:
            return None
        key, digest = start.idempotency
        known = yield self._runs.keyed(key)
        if known and known[1] != digest:
            raise KeyReused(KEY_REUSED)
        return known and str(known[0])

    def _accept(self, rows: Sequence[Row]) -> Steps[list[str]]:
        """Start them now. A key may lead to another run."""
        fresh = yield from self._new(rows)
        if parked := [row for row in fresh if row.start.terms.is_parked]:
            yield self._outbox.put(parked)
        answers = yield from self._accepted(fresh)
        if full := [row for row in fresh if isinstance(answers[row.start.run_id], QueueFull)]:
            yield self._outbox.put(full)
        return [_settled(row.start.run_id, answers) for row in rows]

    def _accepted(
        self, rows: Sequence[Row], earlier: float = 0.0
    ) -> Steps[dict[str, Accepted | RunRefused]]:
        """What came of each. ``earlier``: seconds since they were made."""
        starts = [_after(row.start, earlier) for row in rows]
        limits = self._services.settings.of_accepting
        answers = (yield self._runs.accept_many(starts, **limits)) if starts else []
        if self._store is not None:
            yield asyncio.sleep(0)  # let others have the event loop
        return {s.run_id: answer for s, answer in zip(starts, answers, strict=True)}

    def _new(self, rows: Sequence[Row]) -> Steps[list[Row]]:
        """Those that an earlier attempt has not started."""
        if self._attempt.claim.attempt == 1:
            return list(rows)
        ids = [row.start.run_id for row in rows]
        known = yield self._runs.present(ids)
        ended = yield self._outbox.ended([run_id for run_id in ids if run_id not in known])
        return [row for row in rows if row.start.run_id not in known | ended]

    def _published(self, rows: Sequence[Row], made: float) -> Steps[None]:
        """The transaction has committed. What is not done now, a worker's publisher does."""
        earlier = time.monotonic() - made
        if earlier > PUBLISH_SECONDS:
            return
        try:
            fresh = yield from self._new(rows)
            answers = yield from self._accepted(fresh, earlier)
            yield self._outbox.drop(
                [
                    row.start.run_id
                    for row in rows
                    if not row.start.terms.is_parked
                    and not isinstance(answers.get(row.start.run_id), QueueFull)
                ]
            )
        except ServiceUnavailable as error:
            _log.warning("what was committed is published later", why=str(error))

    # What has become of them

    def _page(self, run_ids: Sequence[str]) -> Steps[list[dict[str, Any]]]:
        """The ends of these runs, in their order."""
        found = yield self._runs.ends(run_ids)
        ends = {end.run_id: end for end in found if end is not None and end.outcome}
        missing = [run_id for run_id in run_ids if run_id not in ends]
        ends |= yield self._past.find(missing)
        return [_shown(run_id, ends.get(run_id)) for run_id in run_ids]

    def _pages(self) -> Iterator[list[str]]:
        """The runs of the group that this run has waited for."""
        group, size = self._attempt.call.group or ("", 0)
        ids = group_runs(group, size)
        for first in range(0, size, PAGE):
            yield ids[first : first + PAGE]

    def _result(self, run_id: str, timeout: float | None) -> Steps[ActionResult]:
        """The result of a run once it has ended."""
        deadline, pauses = _deadline(timeout), _pauses()
        while True:
            [end] = yield self._runs.ends([run_id])
            if end is None:
                end = (yield self._past.find([run_id])).get(run_id)
            if end is None and not (yield self._outbox.has(run_id)):
                return fail(f"No run {run_id!r:.80}")
            if end is not None and not self._may_see(end):
                return fail(f"No run {run_id!r:.80}, or none of this run's caller")
            if end is not None and end.outcome is not None:
                return _result_of(end.outcome)
            pause = min(next(pauses), deadline - time.monotonic())
            if pause <= 0:
                return fail(f"Run {run_id} has not ended after {timeout:g} s")
            yield asyncio.sleep(pause)

    def _may_see(self, end: End) -> bool:
        """Whether it is a child, or a run of the same caller."""
        return end.parent == self._attempt.run_id or end.caller == self._attempt.call.caller

    # With what

    _publish: Callable[..., Any]

    _kinds: tuple[type, type, type]  # of the outbox, the clock and the past ends

    @property
    def _runs(self) -> Any:
        return self._loops or self._services.runs

    @property
    def _database(self) -> Any:
        return (self._store or self._services.store).database

    @property
    def _outbox(self) -> Any:
        return self._kinds[0](self._database, self._services.sealer)

    @property
    def _clock(self) -> Any:
        return self._kinds[1](self._database)

    @property
    def _past(self) -> Any:
        return self._kinds[2](self._database, self._services.sealer)


class Starts(_Starts):
    """For plain handlers."""

    _kinds = (Outbox, DatabaseClock, PastEnds)

    start = plain(_Starts._start)
    start_all = plain(_Starts._start_all)
    _publish = plain(_Starts._published)

    def results(self) -> Iterator[dict[str, Any]]:
        """The ends of the group's runs, read page by page."""
        for page in self._pages():
            yield from run(self._page(page))


class AsyncStarts(_Starts):
    """For async handlers."""

    _kinds = (AsyncOutbox, AsyncDatabaseClock, AsyncPastEnds)

    start = awaited(_Starts._start)
    start_all = awaited(_Starts._start_all)
    result = awaited(_Starts._result)
    _publish = awaited(_Starts._published)

    async def results(self) -> AsyncIterator[dict[str, Any]]:
        """The ends of the group's runs, read page by page."""
        for page in self._pages():
            for end in await arun(self._page(page)):
                yield end


def _packets(rows: Sequence[Row]) -> Iterator[list[Row]]:
    for first in range(0, len(rows), PACKET):
        yield list(rows[first : first + PACKET])


def _after(start: Start, seconds: float) -> Start:
    """The start, so much later."""
    if not start.terms.delay or not seconds:
        return start
    left = max(start.terms.delay - round(seconds * 1000), 0)
    return replace(start, terms=replace(start.terms, delay=left))


def _settled(run_id: str, answers: Mapping[str, Accepted | RunRefused]) -> str:
    """The id of the run that came of a start; what a queue had no room for comes later."""
    answer = answers.get(run_id)
    if isinstance(answer, KeyReused):
        raise KeyReused(KEY_REUSED)
    if isinstance(answer, RunRefused) and not isinstance(answer, QueueFull):
        raise answer
    return answer.run_id if isinstance(answer, Accepted) else run_id


def _shown(run_id: str, end: End | None) -> dict[str, Any]:
    """As ``GET /api/runs/<id>`` shows it; without a result where nothing is kept of it any more."""
    result = end.outcome.envelope() if end and end.outcome else None
    return {
        "runId": run_id,
        "action": end and end.action,
        "status": end and end.status,
        "result": result,
    }


def _result_of(outcome: Outcome) -> ActionResult:
    envelope = outcome.envelope()
    return ok(envelope.get("data")) if envelope["success"] else fail(str(envelope["error"]))


def _deadline(timeout: float | None) -> float:
    return math.inf if timeout is None else time.monotonic() + timeout


def _pauses() -> Iterator[float]:
    """Seconds between two looks at a run: soon at first."""
    pause = 0.01
    while True:
        yield pause
        pause = min(pause * 1.5, 0.5)


def _delay(delay: object) -> float:
    """Seconds; raises `BadRequest`."""
    if delay is None:
        return 0.0
    if isinstance(delay, bool) or not isinstance(delay, int | float):
        raise BadRequest(f"delay: seconds, not {type(delay).__name__}")
    if not delay >= 0:
        raise BadRequest(f"delay: 0 or more seconds, not {delay}")
    return _within(delay)


def _within(seconds: float) -> float:
    if seconds > LONGEST:
        raise BadRequest(f"start: at most {LONGEST // 86_400} days ahead")
    return max(seconds, 0.0)


def _moment(at: object) -> datetime | None:
    if at is None:
        return None
    if not isinstance(at, datetime) or at.utcoffset() is None:
        raise BadRequest(f"at: a datetime with its timezone, not {at!r:.80}")
    return at.astimezone(UTC)


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise BadRequest(f"key: a text, not {type(key).__name__}")
    return key


def _pairs(calls: object) -> list[tuple[str, Any]]:
    if not isinstance(calls, Sequence) or isinstance(calls, str | bytes):
        raise BadRequest(f"start_all: a list of (action, params), not {type(calls).__name__}")
    if len(calls) > MAX_CHILDREN:
        raise BadRequest(f"start_all: at most {MAX_CHILDREN} runs, not {len(calls)}")
    return [_pair(call) for call in calls]


def _pair(call: object) -> tuple[str, Any]:
    if isinstance(call, Sequence) and not isinstance(call, str) and len(call) == 2:
        return call[0], call[1]
    raise BadRequest(f"start_all: (action, params), not {call!r:.80}")
