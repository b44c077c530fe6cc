"""Builds the Flask application."""

from __future__ import annotations

import os
from functools import lru_cache

from flask import Flask, Request
from flask.sessions import NullSession, SessionInterface, SessionMixin
from werkzeug.datastructures import MultiDict
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.routing import MapAdapter
from werkzeug.sansio.utils import get_host
from werkzeug.utils import cached_property

from callboard.errors import BadRequest
from callboard.log.lines import LineLogger, configure_logging
from callboard.registry import Registry, get_registry
from callboard.runs.store import Runs
from callboard.settings import Settings, get_settings
from callboard.tracing import asked_for

from . import cors, errors
from .call.batch import batch
from .call.calls import MAX_BODY_BYTES, add_paths, calls
from .fences import fenced
from .gevent_check import require_gevent
from .internal import internal
from .pages.console import console
from .pages.documentation import docs, openapi
from .pages.signal import signal_page
from .prefix import plain_prefix
from .runs.bulk import bulk
from .runs.detail import run_detail
from .runs.errors import run_errors
from .runs.listing import run_list
from .runs.signals import signals
from .runs.views import runs
from .schedules import schedules
from .services import Services
from .telemetry import audit
from .telemetry.health import health
from .telemetry.metrics import counted_among, metrics

__all__ = ["create_app"]


class NoSessions(SessionInterface):
    """No cookie is read or set: who calls is in the token of each request."""

    _none = NullSession()

    def open_session(self, app: Flask, request: Request) -> SessionMixin:
        """Called by Flask for each request."""
        return self._none


class ApiRequest(Request):
    """A request whose query string may be any bytes."""

    @cached_property
    def args(self) -> MultiDict[str, str]:
        """The query's parameters; raises `BadRequest` where they are no text."""
        try:
            return super().args
        except UnicodeDecodeError as error:
            raise BadRequest("The query string is not UTF-8") from error


class Api(Flask):
    """A Flask application without sessions."""

    request_class = ApiRequest
    session_interface = NoSessions()

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """Called by Flask to find a request's view.

        Flask's own is made to find them by the host too, and looks at that anew each time: a tenth
        of all that it does for a request.
        """
        if request is None or "HTTP_HOST" not in request.environ:
            return super().create_url_adapter(request)
        environ = request.environ
        scheme = environ["wsgi.url_scheme"]
        return MapAdapter(
            self.url_map,
            server_name=_host(scheme, environ["HTTP_HOST"]),
            script_name=environ["SCRIPT_NAME"],
            subdomain="",
            url_scheme=scheme,
            path_info=request.path,
            default_method=environ["REQUEST_METHOD"],
            query_args=environ["QUERY_STRING"],
        )


_host = lru_cache(get_host)  # for redirects; clients name few


def create_app(settings: Settings | None = None, registry: Registry | None = None) -> Flask:
    """The front end, from the environment unless told otherwise.

    Raises `ConfigurationError` for wrong settings, a wrong actions package, or a server that
    blocks.
    """
    require_gevent()
    settings = settings or get_settings()
    configure_logging(development=settings.development)
    app = Api("callboard.api", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES + 1  # one more shows what is too much
    app.url_map.merge_slashes = False  # `//` is another path, not a reason to be sent elsewhere
    registry = registry or get_registry()
    app.extensions["callboard"] = Services.build(settings, registry, _runs_class(app))
    errors.install(app)
    for blueprint in (
        *(calls, batch, runs, bulk, run_detail, run_errors, run_list, signals, signal_page),
        *(internal, schedules, health, openapi, docs, console),
    ):
        app.register_blueprint(blueprint)
    add_paths(app, registry.public)
    app.wsgi_app = fenced(app.wsgi_app)  # type: ignore[method-assign,assignment]
    observers = [audit.written_to(LineLogger(development=settings.development))]
    if settings.serves("metrics"):
        app.register_blueprint(metrics)
        observers.append(counted_among(registry.public))
    audit.install(app, observers)
    if settings.cors_origins:
        cors.install(app, settings.cors_origins)
    if settings.trusted_proxies:
        hops = settings.trusted_proxies
        behind = plain_prefix(app.wsgi_app)
        app.wsgi_app = ProxyFix(behind, x_for=hops, x_proto=hops, x_host=hops, x_prefix=hops)  # type: ignore[method-assign]
    return app


def _runs_class(app: Flask) -> type[Runs]:
    """The class of the run records; with spans, if OpenTelemetry's variables ask for them."""
    if not asked_for(os.environ):
        return Runs
    from .telemetry import tracing  # needs the extra

    tracing.install(app)
    return tracing.TracedRuns
