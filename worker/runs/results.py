"""What has become of runs: ``ctx.results`` and ``ctx.result``, for both kinds of handlers."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from callboard.numbers import is_number
from callboard.runs.children import group_runs
from callboard.runs.ends import End
from callboard.runs.record import is_run_id
from callboard.sans_io import Steps, arun, awaited, run
from callboard.sdk.results import ActionResult, fail

from .reach import Reach

if TYPE_CHECKING:
    from .attempt import Attempt

__all__ = ["AsyncResults", "Results"]

PAGE = 100  # ends of runs that are read at once


class _Results:
    """The ends that a handler asks for."""

    def __init__(self, reach: Reach, attempt: Attempt) -> None:
        self._reach = reach
        self._attempt = attempt

    def _page(self, run_ids: Sequence[str]) -> Steps[list[dict[str, Any]]]:
        """The ends of these runs, in their order."""
        found = yield self._reach.runs.ends(run_ids)
        ends = {end.run_id: end for end in found if end is not None and end.outcome}
        missing = [run_id for run_id in run_ids if run_id not in ends]
        ends |= yield self._reach.past.find(missing)
        return [_shown(run_id, ends.get(run_id)) for run_id in run_ids]

    def _pages(self) -> Iterator[list[str]]:
        """The runs of the group that this run has waited for."""
        group, size = self._attempt.call.group or ("", 0)
        ids = group_runs(group, size)
        for first in range(0, size, PAGE):
            yield ids[first : first + PAGE]

    def _result(self, run_id: str, timeout: float | None) -> Steps[ActionResult]:
        """The result of a run once it has ended."""
        if (refusal := self._refusal(run_id, timeout)) is not None:
            return refusal
        deadline, pauses = _deadline(timeout), _pauses()
        while True:
            [end] = yield self._reach.runs.ends([run_id])
            if end is None:
                end = (yield self._reach.past.find([run_id])).get(run_id)
            if end is None and not (yield self._reach.outbox.has(run_id)):
                return fail(f"No run {run_id!r:.80}", "not_found")
            if end is not None and not self._may_see(end):
                text = f"No run {run_id!r:.80}, or none of this run's caller"
                return fail(text, "not_found")
            if end is not None and end.outcome is not None:
                result: ActionResult = end.outcome.result()
                return result
            pause = min(next(pauses), deadline - time.monotonic())
            if pause <= 0:
                return fail(f"Run {run_id} has not ended after {timeout:g} s", "wait_over")
            yield asyncio.sleep(pause)

    def _refusal(self, run_id: object, timeout: object) -> ActionResult | None:
        """Of what nobody can wait for."""
        if not is_run_id(run_id):
            return fail(f"No run {run_id!r:.80}", "not_found")
        if run_id == self._attempt.run_id:
            return fail("ctx.result: a run cannot wait for its own end", "bad_request")
        if timeout is None or (is_number(timeout) and not math.isnan(timeout)):
            return None
        return fail(f"timeout: seconds, or None, not {timeout!r:.80}", "bad_request")

    def _may_see(self, end: End) -> bool:
        """Whether it is a child, or a run of the same caller."""
        return end.parent == self._attempt.run_id or end.caller == self._attempt.call.caller


class Results(_Results):
    """For plain handlers."""

    def results(self) -> Iterator[dict[str, Any]]:
        """The ends of the group's runs, read page by page."""
        for page in self._pages():
            yield from run(self._page(page))


class AsyncResults(_Results):
    """For async handlers."""

    result = awaited(_Results._result)

    async def results(self) -> AsyncIterator[dict[str, Any]]:
        """The ends of the group's runs, read page by page."""
        for page in self._pages():
            for end in await arun(self._page(page)):
                yield end


def _shown(run_id: str, end: End | None) -> dict[str, Any]:
    """As ``GET /api/runs/<id>`` shows it; without a result where nothing is kept of it any more."""
    result = end.outcome.envelope() if end and end.outcome else None
    return {
        "runId": run_id,
        "action": end and end.action,
        "status": end and end.status,
        "result": result,
    }


def _deadline(timeout: float | None) -> float:
    return math.inf if timeout is None else time.monotonic() + timeout


def _pauses() -> Iterator[float]:
    """Seconds between two looks at a run: soon at first."""
    pause = 0.01
    while True:
        yield pause
        pause = min(pause * 1.5, 0.5)
