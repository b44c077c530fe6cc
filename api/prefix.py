"""The path under which a proxy shows the API, such as ``/callboard``.

It is the server's ``SCRIPT_NAME`` or, behind trusted proxies, their ``X-Forwarded-Prefix``. What
leads back to the API has it in front: ``Location``, the document's servers, the pages' links.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from .services import this_request

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["plain_prefix", "run_location"]

_PREFIX = re.compile(r"(?!.{256})(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)*/?")


def plain_prefix(app: WSGIApplication) -> WSGIApplication:
    """Leave out a prefix from a proxy that could lead elsewhere, such as ``//evil.test``.

    A proxy that sets none may let a client's header through. Goes between the application and
    `werkzeug.middleware.proxy_fix.ProxyFix`.
    """

    def called(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if not _PREFIX.fullmatch(environ.get("SCRIPT_NAME") or ""):
            environ["SCRIPT_NAME"] = environ["werkzeug.proxy_fix.orig"]["SCRIPT_NAME"] or ""
        return app(environ, start_response)

    return called


def run_location(run_id: str) -> str:
    """Where a run is to be found, as the client of this request must ask for it."""
    return f"{this_request().root_path}/api/runs/{run_id}"
