"""The front end: HTTP in, a sealed run out, the result back. ``gunicorn 'api:create_app()'``."""

from api.app import create_app

__all__ = ["create_app"]
