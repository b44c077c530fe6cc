"""``/api/runs/<id>/signals/<name>``: what others tell a run that waits for it.

There are two ways in. With a token: the run's caller and the owner send any JSON. With the
``signature`` of a signed URL (`callboard.runs.signal_url`): whoever has it, without a token; what
else the request brings along, an ``Authorization`` header or a cookie, has no say. So a page of
another site can send nothing that its author could not send himself.

No log has the signature: of this route none has the query at all.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs

import structlog
from flask import Blueprint, Request, Response
from werkzeug.exceptions import HTTPException

from callboard.errors import (
    BadRequest,
    CallboardError,
    InvalidData,
    NotFound,
    TooManySignals,
    Unauthorized,
)
from callboard.runs.history import PastRun
from callboard.runs.record import RunRecord
from callboard.sdk.names import signal_name

from ..call.calls import identify, read_body, read_json
from ..errors import STATUS, envelope
from ..identity.tokens import Identity
from ..pages.signal import button, result_page
from ..services import Services, current_services, this_request

__all__ = ["signals"]

SIGNATURE = "signature"  # the query's parameter
FORM = "application/x-www-form-urlencoded"
MAX_FIELDS = 1000  # of a form

signals = Blueprint("signals", __name__)

_log = structlog.get_logger("callboard.api")


@signals.post("/api/runs/<run_id>/signals/<name>")
def send(run_id: str, name: str) -> Response:
    """Send a signal: ``{"accepted"}``, false where one of this name came before, or it is late."""
    request = this_request()
    if SIGNATURE not in request.args:
        return _answer(_send(run_id, name, request))
    if not _for_people(request):
        return _answer(_send_signed(run_id, name, request))
    try:
        accepted = _send_signed(run_id, name, request)
    except (CallboardError, HTTPException) as refusal:
        return _refusal(refusal)
    if accepted:
        return result_page("Sent", f"“{name}” is sent. You can close this page.", 200)
    return result_page("Nothing has changed", f"“{name}” was sent before, or it is too late.", 200)


@signals.get("/api/runs/<run_id>/signals/<name>")
def ask(run_id: str, name: str) -> Response:
    """A page with a button that sends it. Opening it, as scanners of mails do, sends nothing."""
    try:
        _signed_run(run_id, name, this_request())
    except CallboardError as refusal:
        return _refusal(refusal)
    return button(name)


def _send(run_id: str, name: str, request: Request) -> bool:
    identity = identify()
    if identity is None:
        raise Unauthorized("no token", token_given=False)
    services = current_services()
    run = _own_run(services, run_id, identity)
    try:
        signal_name(name)
    except InvalidData as error:
        raise NotFound(str(error)) from None
    return _keep(services, run, name, read_json(request), caller=identity.subject)


def _send_signed(run_id: str, name: str, request: Request) -> bool:
    run = _signed_run(run_id, name, request)
    value = _form(request) if request.mimetype == FORM else read_json(request)
    return _keep(current_services(), run, name, value, caller=None)


def _own_run(services: Services, run_id: str, identity: Identity) -> RunRecord:
    """The run, if this caller may send it a signal: its own, or any as the owner.

    An anonymous caller's is nobody's own: its id is no secret, it stands in links and logs.
    """
    run = services.find_run(run_id)
    if run is None or not (run.caller == identity.subject or services.is_owner(identity)):
        raise NotFound(f"No run {run_id[:64]!r}, or none that you may send a signal")
    return _taking(services, run)


def _signed_run(run_id: str, name: str, request: Request) -> RunRecord:
    """The run of a signed URL; raises `NotFound`, whatever is wrong with it."""
    services = current_services()
    services.limit_rate(None, "requests")
    signature = request.args.get(SIGNATURE, "")
    if not services.signal_urls.is_signed(signature, run_id, name):
        raise NotFound("Not found")
    run = services.find_run(run_id)
    if run is None:
        raise NotFound("Not found")
    return _taking(services, run)


def _taking(services: Services, run: RunRecord | PastRun) -> RunRecord:
    """The run, unless nothing in it can wait for a signal."""
    if not isinstance(run, RunRecord) or run.ended is not None:
        raise NotFound(f"Run {run.id} is {run.status}: it takes no signals any more")
    action = services.registry.actions.get(run.action)
    if action is not None and action.transaction:
        raise NotFound(f"Action {run.action!r} has transaction=True: its runs wait for no signal")
    return run


def _keep(services: Services, run: RunRecord, name: str, value: Any, *, caller: str | None) -> bool:
    """Whether it counts: an earlier one of this name does before it."""
    sent = services.waiting.signal(run, name, value)
    _log.info("signal", run_id=run.id, action=run.action, name=name, caller=caller, came=sent)
    if sent == "ended":
        raise NotFound(f"Run {run.id} has ended: it takes no signals any more")
    if sent == "full":
        raise TooManySignals(f"Run {run.id} has too many signals, or too large ones: no more fit")
    return sent == "kept"


def _form(request: Request) -> Any:
    """The fields of a form, each a text or, where it came several times, a list of these.

    Of one without fields, such as the page's button: true.
    """
    try:
        fields = parse_qs(
            read_body(request).decode(),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=MAX_FIELDS,
        )
    except ValueError as error:
        raise BadRequest(f"The body is no form of at most {MAX_FIELDS} fields, in UTF-8") from error
    return {
        key: one if more == [] else [one, *more] for key, (one, *more) in fields.items()
    } or True


def _answer(accepted: bool) -> Response:
    return envelope({"success": True, "data": {"accepted": accepted}}, 200)


def _for_people(request: Request) -> bool:
    """Whether the client would rather have a page, as a browser would."""
    kinds = ["application/json", "text/html"]
    return request.accept_mimetypes.best_match(kinds) == "text/html"


def _refusal(error: CallboardError | HTTPException) -> Response:
    """The page of a refusal: of what is not (any more) there, no detail."""
    status = error.code if isinstance(error, HTTPException) else STATUS.get(type(error))
    if status is None:
        raise error
    if status == 404:
        return result_page("This link leads nowhere", "It is not whole, or no longer valid.", 404)
    text = str(error) if isinstance(error, CallboardError) else "It could not be read."
    response = result_page("That did not work", text, status)
    if status == 503:
        response.headers["Retry-After"] = "2"
    return response
