"""``/api/runs/errors``: what fails, for the owner alone."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from flask import Blueprint, Response, request

from callboard.runs.failures import FailureGroup, failures

from ..call.calls import identify
from ..errors import envelope
from ..numbers import whole_number
from ..services import current_services
from .filters import checked_action
from .view import moment

__all__ = ["run_errors"]

HOURS = 24
MOST_HOURS = 30 * 24  # that the history is kept
GROUPS = 200  # that are shown

run_errors = Blueprint("run_errors", __name__)


@run_errors.get("/api/runs/errors")
def errors() -> Response:
    """The failed runs of the last ``?hours=``, by action and exception, the most frequent first.

    ``{"errors": [...], "complete"}``: False where there are more than were looked at.
    """
    services = current_services()
    services.require_owner(identify())
    hours = whole_number("hours", request.args.get("hours"), HOURS, MOST_HOURS)
    action = checked_action(request.args.get("action"))
    since = round((time.time() - hours * 3600) * 1000)
    groups, complete = failures(services.run_list, since=since, action=action)
    shown = [_shown(group) for group in groups[:GROUPS]]
    data = {"errors": shown, "complete": complete and len(shown) == len(groups)}
    return envelope({"success": True, "data": data}, 200)


def _shown(group: FailureGroup) -> dict[str, Any]:
    values = asdict(group)
    run_id, first, last = values.pop("run_id"), values.pop("first"), values.pop("last")
    return {**values, "runId": run_id, "first": moment(first), "last": moment(last)}
