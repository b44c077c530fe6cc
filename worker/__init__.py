"""The worker: runs the handlers. `callboard.programs` has the commands."""

from __future__ import annotations

import sys
from functools import cache
from io import TextIOWrapper
from typing import Any

from callboard.errors import ConfigurationError

__all__ = ["app"]

INLINE = ("inline_resources", "inline_tools", "prepare", "run_inline")


def __getattr__(name: str) -> Any:
    """``worker.celery_app``: built on first use, so that importing a module of the worker needs no
    settings. A wrong setting ends the process with one message.

    The names in ``INLINE`` are what `callboard.testing` runs handlers with.
    """
    if name in INLINE:
        from .runs import inline

        return getattr(inline, name)
    if name != "app":
        raise AttributeError(name)
    return _app()


@cache
def _app() -> Any:
    from .celery_app import create_app

    # what modules print as they are imported comes at once, and once: children inherit a buffer
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    try:
        return create_app()
    except ConfigurationError as error:
        sys.exit(f"callboard: {error}")
