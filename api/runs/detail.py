"""``/api/runs/<id>/detail``: all that is known of a run, for the owner alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flask import Blueprint, Response

from callboard.runs.attempts import PastAttempt, attempts_of
from callboard.runs.history import PastRun
from callboard.runs.listing import RunFilter
from callboard.runs.record import RunRecord
from callboard.runs.step_times import StepTime, open_steps, step_fields

from ..call.calls import identify
from ..errors import envelope
from ..services import Services, current_services
from .again import params_of
from .view import listed, moment, shown

__all__ = ["run_detail"]

CHILDREN = 100  # that are shown at once; `GET /api/runs?parent=` has the others

run_detail = Blueprint("run_detail", __name__)


@run_detail.get("/api/runs/<run_id>/detail")
def detail(run_id: str) -> Response:
    """The run, its params, attempts, log lines, steps and the runs that it has started."""
    services, identity = current_services(), identify()
    services.require_owner(identity)
    run = services.visible_run(run_id, identity)
    attempts, steps = _attempts_and_steps(services, run)
    children, after = services.run_list.page(RunFilter(parent=run.id), CHILDREN, None)
    data = {
        **shown(run),
        "parent": run.parent,
        "params": params_of(services, run),
        "attempts": [_attempt(run, attempt) for attempt in attempts],
        "log": [line for attempt in attempts for line in _lines(attempt)],
        "steps": [_step(step) for step in steps],
        "children": {"runs": [listed(child) for child in children], "after": after},
    }
    return envelope({"success": True, "data": data}, 200)


def _attempts_and_steps(
    services: Services, run: RunRecord | PastRun
) -> tuple[list[PastAttempt], Sequence[StepTime]]:
    """The attempts and the steps."""
    which = (services.runs.sealer, run.id, run.action)
    if isinstance(run, PastRun):
        kept, steps = run.kept, run.steps
    else:
        kept = services.runs.sealed_fields(run.id)
        steps = [*open_steps(*which, step_fields(kept))]
    attempts = attempts_of(
        *which,
        number=run.attempt, status=run.status, started=run.started, ended=run.ended, kept=kept,
    )  # fmt: skip
    return attempts, steps


def _attempt(run: RunRecord | PastRun, attempt: PastAttempt) -> dict[str, Any]:
    """One start of the handler; the last one of a failed run fails as the run does."""
    report = attempt.report
    error = report and report.error
    if error is None and attempt.number == run.attempt and attempt.status == run.status:
        error = run.error
    return {
        "attempt": attempt.number,
        "status": attempt.status,
        "startedAt": moment(attempt.started),
        "completedAt": moment(attempt.ended),
        "worker": attempt.worker,
        "error": error,
        "traceback": report and report.traceback,
        "linesDropped": report.dropped if report else 0,
    }


def _lines(attempt: PastAttempt) -> list[dict[str, Any]]:
    return [
        {
            "attempt": attempt.number,
            "at": moment(line.at),
            "level": line.level,
            "source": line.source,
            "text": line.text,
        }
        for line in (attempt.report.lines if attempt.report else ())
    ]


def _step(step: StepTime) -> dict[str, Any]:
    return {
        "kind": step.kind,
        "name": step.name,
        "startedAt": moment(step.started),
        "completedAt": moment(step.ended),
    }
