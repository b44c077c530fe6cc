"""``GET /api/runs``: a caller's own runs; the owner sees all."""

from __future__ import annotations

from flask import Blueprint, Response, request

from callboard.errors import BadRequest, Unauthorized
from callboard.runs.listing import RunFilter
from callboard.runs.record import is_run_id

from ..call.calls import identify
from ..errors import envelope
from ..numbers import whole_number
from ..services import current_services
from .filters import checked_action, checked_status
from .view import listed

__all__ = ["run_list"]

DEFAULT_LIMIT = 50
MAX_LIMIT = 200

run_list = Blueprint("run_list", __name__)


@run_list.get("/api/runs")
def page() -> Response:
    """Runs, newest first: ``{"runs", "after"}``, where ``after`` is the next page's cursor.

    ``?action=``, ``?status=`` and ``?parent=`` (the run that has started them) filter,
    ``?lost=true`` leaves those that ended `Worker lost`.
    """
    identity = identify()
    if identity is None:
        raise Unauthorized("no token", token_given=False)
    services = current_services()
    caller = None if services.is_owner(identity) else identity.subject
    limit = whole_number("limit", request.args.get("limit"), DEFAULT_LIMIT, MAX_LIMIT)
    runs, after = services.run_list.page(_filter(caller), limit, request.args.get("after"))
    data = {"runs": [listed(run) for run in runs], "after": after}
    return envelope({"success": True, "data": data}, 200)


def _filter(caller: str | None) -> RunFilter:
    action = checked_action(request.args.get("action"))
    status = checked_status(request.args.get("status"))
    parent = request.args.get("parent")
    if parent is not None and not is_run_id(parent):
        raise BadRequest(f"parent: {parent[:64]!r} is not the id of a run")
    lost = request.args.get("lost", "false")
    if lost not in ("true", "false"):
        raise BadRequest(f"lost: true or false, not {lost[:40]!r}")
    if lost == "true" and status not in (None, "failed"):
        raise BadRequest(f"lost: a lost run has failed, and is not {status}")
    return RunFilter(
        caller=caller, parent=parent, action=action, status=status, lost=lost == "true"
    )
