"""``POST /api/runs/bulk``: one thing done to all runs that a filter finds; for the owner alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog
from flask import Blueprint, Response

from callboard import cursor
from callboard.errors import BadRequest, CallboardError, NotRetryable, RunRefused, SealError
from callboard.runs.history import PastRun
from callboard.runs.listing import RunFilter
from callboard.runs.live import Position
from callboard.runs.record import RunRecord
from callboard.runs.store import Accepted
from callboard.subject import check_subject

from ..call.calls import identify, read_object
from ..call.due import moment_of
from ..call.later import place
from ..errors import envelope
from ..services import Services, current_services, this_request
from .again import replayed, retry
from .filters import checked_action, checked_status

__all__ = ["MAX_RUNS", "bulk"]

MAX_RUNS = 10_000
PAGE = 200  # runs that are read, and done something to, at once
SECONDS = 20.0  # then the answer says how far it came
FIELDS = ("action", "status", "caller", "since", "until")
BODY = '{"do": "cancel" | "retry" | "replay", "filter": {...}, "limit"?, "dryRun"?}'

bulk = Blueprint("bulk", __name__)

_log = structlog.get_logger("callboard.api")

Run = RunRecord | PastRun
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class _BulkRequest:
    """What is to be done to which runs."""

    do: str
    runs: RunFilter
    since: int | None  # epoch milliseconds: when they were enqueued
    until: int | None
    limit: int
    dry_run: bool


@bulk.post("/api/runs/bulk")
def change_all() -> Response:
    """Cancel, retry or replay: ``{"matched", "done", "complete"}``.

    ``matched``: the runs of the filter that it can be done to. ``complete``: false where the limit,
    or the time of a request, left others out; the same request goes on (for a replay, which leaves
    the runs as they are, with an earlier ``until``).
    """
    services, identity = current_services(), identify()
    services.require_owner(identity)
    request = _read(read_object(this_request()))
    matched, done, complete = _carried_out(services, request)
    caller = identity and identity.subject
    _log.info("bulk", do=request.do, matched=matched, done=done, caller=caller, dry=request.dry_run)
    data = {"matched": matched, "done": done, "complete": complete}
    return envelope({"success": True, "data": data}, 200)


def _carried_out(services: Services, request: _BulkRequest) -> tuple[int, int, bool]:
    """How many runs it is for, to how many it was done, and whether these are all."""
    matched = done = 0
    deadline = time.monotonic() + SECONDS
    for page in _pages(services, request):
        chosen = page[: request.limit - matched]
        if time.monotonic() > deadline or (page and not chosen):
            return matched, done, False
        matched += len(chosen)
        done += 0 if request.dry_run else _OPERATIONS[request.do].each(services, chosen)
        if len(chosen) < len(page):
            return matched, done, False
    return matched, done, True


def _pages(services: Services, request: _BulkRequest) -> Iterator[list[Run]]:
    """The runs that the request is for, newest first, as they were when their page was read.

    Of a page without such runs an empty list: however many there are, who reads can stop.
    """
    after = None if request.until is None else cursor.encode(Position(request.until, "z"))
    while True:
        runs, after = services.run_list.page(request.runs, PAGE, after)
        new = [run for run in runs if request.since is None or run.enqueued >= request.since]
        yield [run for run in new if _OPERATIONS[request.do].fits(run)]
        if after is None or len(new) < len(runs):
            return


def _cancel(services: Services, run: Run) -> bool:
    if isinstance(run, PastRun):  # it has ended since
        return False
    services.waiting.cancel(run)
    return True


def _retry(services: Services, run: Run) -> bool:
    return retry(services, _whole(services, run))


def _whole(services: Services, run: Run) -> Run:
    """As it is now: a list does not have what it was called with."""
    found = services.find_run(run.id)
    if found is None:
        raise NotRetryable("The run is gone")
    return found


def _one_by_one(
    operation: Callable[[Services, Run], Any],
) -> Callable[[Services, Sequence[Run]], int]:
    def each(services: Services, runs: Sequence[Run]) -> int:
        return sum(bool(_tried(operation, services, run)) for run in runs)

    return each


def _replay(services: Services, runs: Sequence[Run]) -> int:
    starts = [
        _tried(lambda here, run: replayed(here, _whole(here, run)), services, run) for run in runs
    ]
    answers = place(services, [start for start in starts if start])
    return sum(isinstance(answer, Accepted) for answer in answers)


def _tried(operation: Callable[[Services, Run], T], services: Services, run: Run) -> T | None:
    """None where the run refuses it: that stops no other."""
    try:
        return operation(services, run)
    except (RunRefused, SealError):
        return None
    except CallboardError:
        raise
    except Exception as error:  # noqa: BLE001 - of a validator of the application's
        _log.error("a run of a bulk request failed", run_id=run.id, exc_info=error)
        return None


@dataclass(frozen=True, slots=True)
class _Operation:
    """``fits``: whether a run is in a state for it. ``each``: does it; how many times it could."""

    fits: Callable[[Run], bool]
    each: Callable[[Services, Sequence[Run]], int]


_OPERATIONS: Mapping[str, _Operation] = {
    "cancel": _Operation(
        lambda run: run.status in ("queued", "waiting", "running"), _one_by_one(_cancel)
    ),
    "retry": _Operation(lambda run: run.status == "failed", _one_by_one(_retry)),
    "replay": _Operation(lambda run: run.ended is not None, _replay),
}


def _read(body: Mapping[str, Any]) -> _BulkRequest:
    if unknown := body.keys() - {"do", "filter", "limit", "dryRun"}:
        raise BadRequest(f"The body must be {BODY}; {min(unknown)[:40]!r} is not in it")
    do, chosen, limit = body.get("do"), body.get("filter"), body.get("limit", MAX_RUNS)
    if not isinstance(do, str) or do not in _OPERATIONS:
        raise BadRequest(f"do: one of {', '.join(_OPERATIONS)}, not {do!r:.60}")
    if not isinstance(chosen, dict) or chosen.keys() - set(FIELDS) or _is_for_all(chosen):
        raise BadRequest(f"filter: an object with at least one of {', '.join(FIELDS)}")
    if type(limit) is not int or not 1 <= limit <= MAX_RUNS:
        raise BadRequest(f"limit: a whole number from 1 to {MAX_RUNS}, not {limit!r:.40}")
    if type(dry_run := body.get("dryRun", False)) is not bool:
        raise BadRequest(f"dryRun: true or false, not {dry_run!r:.40}")
    return _BulkRequest(
        do=do,
        runs=_filter(do, chosen),
        since=_milliseconds("since", chosen.get("since")),
        until=_milliseconds("until", chosen.get("until")),
        limit=limit,
        dry_run=dry_run,
    )


def _is_for_all(chosen: Mapping[str, Any]) -> bool:
    """Whether it leaves no run out: a field that is null is as good as not there."""
    return all(value is None for value in chosen.values())


def _filter(do: str, chosen: Mapping[str, Any]) -> RunFilter:
    if (caller := chosen.get("caller")) is not None:
        _require_subject(caller)
    return RunFilter(
        caller=caller,
        action=checked_action(chosen.get("action")),
        status=checked_status(chosen.get("status")),
        recorded=do == "cancel",
    )


def _require_subject(caller: object) -> None:
    if not isinstance(caller, str):
        raise BadRequest(f"caller: the subject of a token, not {caller!r:.40}")
    try:
        check_subject(caller, "caller")
    except ValueError as error:
        raise BadRequest(str(error)) from None


def _milliseconds(name: str, text: object) -> int | None:
    """Since the epoch; None for None."""
    return None if text is None else max(0, int(moment_of(name, text).timestamp() * 1000))
