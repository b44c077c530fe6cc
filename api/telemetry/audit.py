"""What is noted of each call when its response is ready: who called what, how it ended, how long
it took.

No parameter, no header and no token is ever part of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from flask import Flask, Request, Response, current_app

from callboard.log.lines import LineLogger

from ..services import this_request

__all__ = ["CALLER", "REFUSED", "EndedCall", "Observer", "begin", "install", "notify", "written_to"]

# What is noted of a request meanwhile, in its WSGI environment
CALLER = "callboard.caller"  # the verified subject
REFUSED = "callboard.refused"  # why its token was
_STARTED = "callboard.started"  # time.perf_counter seconds

_OBSERVERS = "callboard.observers"  # of an application, by its extensions


class EndedCall(NamedTuple):
    """A call whose response is ready."""

    action: str  # as the client named it: perhaps none of ours
    status: int  # of the HTTP response
    seconds: float  # since the call path began
    run_id: str | None  # None: it was refused before there was a run
    caller: str | None  # None: anonymous, or refused
    refused: str | None  # why the token was


Observer = Callable[[EndedCall], None]


def begin(request: Request) -> None:
    """This request is a call, and begins now."""
    request.environ[_STARTED] = time.perf_counter()


def notify(call: EndedCall) -> None:
    """Tell of a call that has no response of its own."""
    for observe in current_app.extensions[_OBSERVERS]:
        observe(call)


def install(app: Flask, observers: Sequence[Observer]) -> None:
    """Tell these of each call when its response is ready."""
    app.extensions[_OBSERVERS] = observers

    @app.after_request
    def notify(response: Response) -> Response:
        request = this_request()
        noted = request.environ
        if _STARTED in noted:
            call = EndedCall(
                (request.view_args or {})["name"],
                response.status_code,
                time.perf_counter() - noted[_STARTED],
                response.headers.get("Run-Id"),
                noted.get(CALLER),
                noted.get(REFUSED),
            )
            for observe in observers:
                observe(call)
        return response


def written_to(log: LineLogger) -> Observer:
    """Writes one line per call."""

    def write(call: EndedCall) -> None:
        log.info(
            "call",
            run_id=call.run_id,
            action=call.action[:64],
            caller=call.caller,
            status=call.status,
            ms=round(call.seconds * 1000, 1),
            refused=call.refused,
        )

    return write
