"""The OpenAPI 3.1 document: what the actions of a registry look like over HTTP.

``components``: the parts that many operations share. ``actions``: one operation per action,
from its model, its docstring and its options. ``endpoints``: the fixed rest of the API.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from callboard.registry import Registry

from .actions import action_paths
from .components import COMPONENTS
from .endpoints import ENDPOINTS, TAGS

__all__ = ["build_document"]

_DESCRIPTION = (
    'Server actions. Every JSON body is `{"success": true, "data": ...}` or '
    '`{"success": false, "error": "...", "code": "..."}`.'
)


def build_document(registry: Registry, prefix: str = "") -> dict[str, Any]:
    """The document of this application, ready for JSON; ``prefix``: the path in front of all."""
    paths, schemas = action_paths(registry)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Callboard",
            "version": version("callboard"),
            "description": _DESCRIPTION,
        },
        "servers": [{"url": prefix or "/"}],
        "tags": TAGS,
        "paths": {**paths, **ENDPOINTS},
        "components": {**COMPONENTS, "schemas": {**schemas, **COMPONENTS["schemas"]}},
    }
