"""Headers of every response that does not say otherwise: a caller's data are kept nowhere."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["FENCES", "fenced"]

FENCES = (("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff"))


def fenced(app: WSGIApplication) -> WSGIApplication:
    """The application, whose responses have the headers."""

    def serve(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], *raised: Any) -> Any:
            given = {name for name, _ in headers}
            return start_response(
                status, headers + [one for one in FENCES if one[0] not in given], *raised
            )

        return app(environ, start)

    return serve
