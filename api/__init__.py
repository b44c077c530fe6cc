"""The front end: HTTP in, a sealed run out, the result back. ``gunicorn 'api:create_app()'``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask

    from callboard.registry import Registry
    from callboard.settings import Settings

__all__ = ["create_app"]


def create_app(settings: Settings | None = None, registry: Registry | None = None) -> Flask:
    """The front end, from the environment unless told otherwise.

    gunicorn's settings name `api.server`, in a process that must not yet import the application.
    """
    from .app import create_app

    return create_app(settings, registry)
