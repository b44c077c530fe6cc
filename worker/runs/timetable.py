"""The timetable: what ``ctx.schedules`` does, for plain handlers and for async ones.

Within a transaction a schedule is put, or removed, if and only if the transaction commits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from callboard.errors import BadRequest, RunRefused, SealError
from callboard.runs.seal import Call
from callboard.sans_io import Steps, awaited, plain
from callboard.schedules.check import option_mistakes, timing_mistakes
from callboard.schedules.stored import Stored, is_stored_name
from callboard.schedules.timing import fires_after
from callboard.sdk.results import ActionResult, fail, ok
from callboard.sdk.schedule import Schedule
from callboard.times import iso

from .parent import Parent
from .reach import Reach

if TYPE_CHECKING:
    from ..tools.tools import AsyncTools, Tools
    from ..tools.transaction import Transaction
    from .attempt import Attempt

__all__ = ["AsyncTimetable", "Timetable"]

MAX_CALL_BYTES = 64 * 1024  # of params and claims, as JSON
CATCH_UP = ("none", "last")

Answer = ActionResult[dict[str, Any]]


class _Timetable:
    """That of one attempt."""

    def __init__(self, reach: Reach, attempt: Attempt, tools: Tools | AsyncTools) -> None:
        self._reach = reach
        self._attempt = attempt
        self._tools = tools

    def _put(self, name: str, action: str, options: Mapping[str, Any]) -> Steps[Answer]:
        try:
            schedule, call = self._checked(name, action, **options)
        except RunRefused as refusal:
            return fail(str(refusal), refusal.code)
        answer: Answer = yield self._tools.do(partial(self._write, schedule, call))
        return answer

    def _remove(self, name: str) -> Steps[Answer]:
        answer: Answer = yield self._tools.do(partial(self._delete, name))
        return answer

    def _get(self, name: str) -> Steps[Answer]:
        answer: Answer = yield self._tools.do(partial(self._read, name))
        return answer

    # Checks

    def _checked(
        self,
        name: str,
        action: str,
        *,
        params: Any,
        as_owner: bool,
        **timing: Any,
    ) -> tuple[Schedule, Call]:
        """Raises `RunRefused`."""
        self._require_name(name)
        parent, run_id = Parent(self._reach, self._attempt), f"schedule {name}"
        start = parent.child(run_id, action, params, as_owner=as_owner)
        if as_owner:
            parent.log_as_owner(run_id, start)
        if start.call.caller is None:
            raise BadRequest("schedules.put: this run has no caller to run as: pass as_owner=True")
        schedule = Schedule(name, start.action.name, params=start.call.params, **timing)
        for mistake in (*timing_mistakes(schedule), *option_mistakes(schedule, CATCH_UP)):
            raise BadRequest(f"schedules.put {name!r}: {mistake}")
        call = replace(start.call, jwt=None, parent=None, depth=0)
        if len(call.to_json()) > MAX_CALL_BYTES:
            raise BadRequest(
                f"schedules.put {name!r}: at most {MAX_CALL_BYTES // 1024} KiB of params: keep a "
                f"record, and pass its id"
            )
        return schedule, call

    def _require_name(self, name: object) -> None:
        if not is_stored_name(name):
            raise BadRequest(
                f"schedules.put: a name is up to 255 letters, digits and _.:@|+=~-, a letter or a "
                f"digit first, not {name!r:.80}"
            )
        declared = self._reach.services.registry.schedules
        if any(schedule.name == name for schedule in declared):
            raise BadRequest(f"schedules.put: {name!r} is the name of a declared schedule")

    # Reads and writes

    def _write(
        self, schedule: Schedule, call: Call, transaction: Transaction | None
    ) -> Steps[Answer]:
        now = yield self._reach.clock()
        yield self._reach.stored.put(schedule, call, now, _session(transaction))
        return ok({"name": schedule.name, "nextFire": iso(next(fires_after(schedule, now)))})

    def _delete(self, name: str, transaction: Transaction | None) -> Steps[Answer]:
        removed = yield self._reach.stored.remove(str(name), _session(transaction))
        return ok({"removed": removed})

    def _read(self, name: str, transaction: Transaction | None) -> Steps[Answer]:
        try:
            found = yield self._reach.stored.get(str(name), _session(transaction))
        except SealError:
            return fail(f"No key of SECRET_KEY opens the schedule {name!r:.80}", "not_found")
        return ok(_shown(found)) if found else fail("Schedule not found", "not_found")


class Timetable(_Timetable):
    """For plain handlers."""

    put = plain(_Timetable._put)
    remove = plain(_Timetable._remove)
    get = plain(_Timetable._get)


class AsyncTimetable(_Timetable):
    """For async handlers."""

    put = awaited(_Timetable._put)
    remove = awaited(_Timetable._remove)
    get = awaited(_Timetable._get)


def _session(transaction: Transaction | None) -> Any:
    return transaction.session if transaction else None


def _shown(entry: Stored) -> dict[str, Any]:
    schedule, state = entry.schedule, entry.state
    following = None if state.paused else next(fires_after(schedule, state.through))
    return {
        "name": schedule.name,
        "action": schedule.action,
        "everyMinutes": schedule.every_minutes,
        "cron": schedule.cron,
        "timezone": schedule.timezone,
        "params": dict(schedule.params),
        "caller": entry.call.caller,
        "catchUp": schedule.catch_up,
        "overlap": schedule.overlap,
        "paused": state.paused,
        "lastFire": state.last_fire and iso(state.last_fire),
        "nextFire": following and iso(following),
    }
