"""The console: a page at ``/`` to call actions and to look at runs and schedules.

The server sends only the shell, which needs no token. All data come from the API, asked for in
the browser with the token of who signed in; it stays in the browser tab (sessionStorage). Which
actions there are, the page learns from ``/api/openapi.json``, after that sign-in.
"""

from __future__ import annotations

from flask import Blueprint, Response, abort

from ...services import current_services
from ..files import page

__all__ = ["console"]

_POLICY = {
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self'",
    "connect-src": "'self'",
}

console = Blueprint(
    "console",
    __name__,
    static_folder="static",
    static_url_path="/console",
    template_folder="templates",
)


@console.before_request
def _require_console() -> None:
    if not current_services().settings.serves("console"):
        abort(404)


@console.get("/")
def shell() -> Response:
    """The page, without data."""
    settings = current_services().settings
    return page(
        "console.html", _POLICY, docs=settings.serves("docs"), development=settings.development
    )
