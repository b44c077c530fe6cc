"""What starts again: a run under its own id (retry), or its call as a new run (replay)."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from callboard import strict_json
from callboard.errors import NotReplayable, NotRetryable
from callboard.runs.history import PastRun
from callboard.runs.record import RunRecord
from callboard.runs.seal import CALL_LIFETIME, Call
from callboard.runs.start import Start
from callboard.sdk.action import Action

from ..services import Services

__all__ = ["not_so_ended", "params_of", "replayed", "retry"]


def retry(services: Services, run: RunRecord | PastRun) -> bool:
    """Start a run that ended retryable again; False where somebody else has meanwhile.

    Raises `NotRetryable` and `BrokerUnavailable`.
    """
    record, call = _kept(run)
    return services.runs.retry(record, _call_again(services.registry.get(record.action), call))


def replayed(
    services: Services, run: RunRecord | PastRun, params: Mapping[str, Any] | None = None
) -> Start:
    """A new run of what this one was called with, or with other ``params``.

    As its caller, but without the token and the claims that it came with: they are not kept.
    Raises `NotReplayable`, `InvalidParams`, and what the history raises.
    """
    if run.ended is None:
        raise NotReplayable(f"The run is {run.status}: a run is replayed once it has ended")
    action = services.registry.actions.get(run.action)
    if action is None:
        raise NotReplayable(f"There is no action {run.action[:64]!r} any more")
    if action.raw:
        raise NotReplayable(
            "The request that a raw action was sent is not kept; have it sent again"
        )
    if params is None:
        params = params_of(services, run)
    if params is None:
        raise NotReplayable("What the run was called with cannot be had any more: give it params")
    action.validate(params)
    return Start(
        run_id=str(uuid.uuid4()), action=action, call=Call(caller=run.caller, params=params)
    )


def params_of(services: Services, run: RunRecord | PastRun) -> dict[str, Any] | None:
    """What the run was called with; None once that is dropped, or its key has left SECRET_KEY.

    A record loses it once the history has the run.
    """
    if isinstance(run, RunRecord):
        if run.call is not None:
            return dict(run.call.params)
        past = services.history.find(run.id)
        if past is None:
            return None
        run = past
    return None if run.params is None else strict_json.loads(run.params)


def not_so_ended(run: RunRecord | PastRun) -> NotRetryable:
    """The refusal of a run that did not end retryable."""
    return NotRetryable(f"A run that is {run.status} starts again only after `Worker lost`")


def _kept(run: RunRecord | PastRun) -> tuple[RunRecord, Call]:
    """What may start again of a run that ended so; else raises `NotRetryable`.

    Its end is judged first, wherever the run is kept: the answer is the same before and after
    the archiver has been there. (In the history, no `outcome`: its key has left SECRET_KEY.)
    """
    if run.status != "failed" or (run.outcome and not run.outcome.retryable):
        raise not_so_ended(run)
    if not isinstance(run, RunRecord) or run.call is None:
        raise NotRetryable("What the run was called with is no longer kept; call the action again")
    return run, run.call


def _call_again(action: Action, call: Call) -> Call:
    """The call, good for another day.

    Not that of a transaction: after the second day its marker is gone, and with it the proof
    of what was committed.
    """
    now = time.time()
    if not action.transaction:
        return replace(call, expires=now + CALL_LIFETIME)
    if call.expires < now:
        raise NotRetryable("A transaction can be retried for a day only; call the action again")
    return call
