"""Builds the Flask application."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from api import audit, cors, errors, metrics
from api.calls import MAX_BODY_BYTES, calls
from api.console import console
from api.documentation import docs, openapi
from api.health import health
from api.run_list import run_list
from api.runs import runs
from api.schedules import schedules
from api.services import Services
from callboard.log import LineLogger, configure_logging
from callboard.registry import Registry, get_registry
from callboard.settings import Settings, get_settings
from callboard.tracing import asked_for

__all__ = ["create_app"]


class Api(Flask):
    """A Flask application whose views are all plain functions."""

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Called by Flask for each function of a request, five times a call; none is async."""
        return func


def create_app(settings: Settings | None = None, registry: Registry | None = None) -> Flask:
    """The front end, from the environment unless told otherwise.

    Raises `ConfigurationError` for wrong settings or a wrong actions package.
    """
    settings = settings or get_settings()
    configure_logging(development=settings.development)
    app = Api("callboard.api", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES + 1  # one more shows what is too much
    app.extensions["callboard"] = Services.build(settings, registry or get_registry())
    errors.install(app)
    if asked_for(os.environ):
        from api import tracing  # needs the extra

        tracing.install(app)
    audit.install(app, LineLogger(development=settings.development))
    for blueprint in (calls, runs, run_list, schedules, health, openapi, docs, console):
        app.register_blueprint(blueprint)
    if settings.serves("metrics"):
        metrics.install(app)
    if settings.cors_origins:
        cors.install(app, settings.cors_origins)
    if settings.trusted_proxies:
        hops = settings.trusted_proxies
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops, x_host=hops)  # type: ignore[method-assign]
    return app
