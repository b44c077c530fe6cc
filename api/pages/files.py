"""What the HTML pages share: the headers that fence them in."""

from __future__ import annotations

from flask import Response, render_template, request

__all__ = ["page"]


def page(
    template: str, policy: dict[str, str], *, cache: str = "no-cache", **values: object
) -> Response:
    """A rendered page under a Content-Security-Policy (directive -> sources).

    What the policy does not name is forbidden: no inline script or style, no other origin.
    ``cache``: its Cache-Control.
    """
    fences = {
        "default-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        **policy,
    }
    response = Response(render_template(template, root=request.root_path, **values))
    response.headers["Content-Security-Policy"] = "; ".join(
        f"{directive} {sources}" for directive, sources in fences.items()
    )
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cache-Control"] = cache
    return response
