"""``/api/openapi.json``, and ``/docs``, which shows it.

The page is Swagger UI as the package `flask-swagger-ui` ships it: from this server, from no
other. Only the package's files are used, because its own page has scripts inside the HTML.
"""

from __future__ import annotations

import json
from importlib.resources import files

from flask import Blueprint, Response, abort, current_app, request, send_from_directory

from callboard.errors import Unauthorized

from ...call.calls import identify
from ...services import current_services
from ..files import page
from ..openapi import build_document

__all__ = ["docs", "openapi"]

_KEPT = "callboard.openapi"
_FILES = ("swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png")
_POLICY = {
    "script-src": "'self'",
    "style-src": "'self' 'unsafe-inline'",  # Swagger UI writes style attributes
    "img-src": "'self' data:",
    "connect-src": "'self'",
}

openapi = Blueprint("openapi", __name__)
docs = Blueprint(
    "docs",
    __name__,
    static_folder="static",
    static_url_path="/docs/static",
    template_folder="templates",
)


@openapi.get("/api/openapi.json")
def document() -> Response:
    """The document: for everyone where it, or the page that shows it, is served.

    The console reads its actions from it; where only that is served, a token is needed.
    """
    settings = current_services().settings
    public = settings.serves("openapi") or settings.serves("docs")
    if not public and not settings.serves("console"):
        abort(404)
    if public:
        current_services().limit_rate(None, "requests")
    elif identify() is None:
        raise Unauthorized("no token", token_given=False)
    return Response(_document(request.root_path), mimetype="application/json")


@docs.before_request
def _require_docs() -> None:
    if not current_services().settings.serves("docs"):
        abort(404)


@docs.get("/docs")
def shell() -> Response:
    """Swagger UI."""
    return page("docs.html", _POLICY)


@docs.get("/docs/swagger/<name>")
def swagger(name: str) -> Response:
    """A file of Swagger UI."""
    if name not in _FILES:
        abort(404)
    return send_from_directory(str(files("flask_swagger_ui") / "dist"), name)


def _document(prefix: str) -> str:
    """Written on its first use and, for another prefix, anew: there is hardly more than one."""
    kept: tuple[str, str] | None = current_app.extensions.get(_KEPT)
    if kept is None or kept[0] != prefix:
        kept = prefix, json.dumps(build_document(current_services().registry, prefix))
        current_app.extensions[_KEPT] = kept
    return kept[1]
