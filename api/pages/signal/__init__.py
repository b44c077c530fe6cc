"""The page behind a signed URL: a button that sends the signal, and what came of it.

It has no script, and works without any. Nothing on it leads elsewhere, and it says nothing of the
run: who has the link may be anybody.
"""

from __future__ import annotations

from flask import Blueprint, Response

from ..files import page

__all__ = ["button", "signal_page", "told"]

_POLICY = {"style-src": "'self'", "img-src": "'self'", "form-action": "'self'"}

signal_page = Blueprint(
    "signal_page",
    __name__,
    static_folder="static",
    static_url_path="/signals",
    template_folder="templates",
)


def button(name: str) -> Response:
    """The page with the button; the form goes to the page's own address."""
    return page("signal.html", _POLICY, cache="no-store", title=f"Send “{name}”?", name=name)


def result_page(title: str, text: str, status: int) -> Response:
    """A page that tells what came of it."""
    response = page("signal.html", _POLICY, cache="no-store", title=title, text=text)
    response.status_code = status
    return response
