"""The URL under which whoever has it may send a signal to a run: an approval link, a webhook.

What it proves is in its ``signature``: HMAC-SHA256 over the run's id and the signal's name, so it
is good for nothing else. Its key is derived from ``SECRET_KEY``, a list: the first key signs, all
are good, so a URL lives as long as the key that signed it stays in the list.
"""

from __future__ import annotations

import hmac
from functools import cached_property

from callboard.errors import ConfigurationError
from callboard.runs.seal import derive
from callboard.sdk.names import signal_name

__all__ = ["SignalUrls"]


class SignalUrls:
    """Those of one application. ``secrets``: the keys of SECRET_KEY; ``public_url``: where others
    reach the API (CALLBOARD_PUBLIC_URL)."""

    def __init__(self, secrets: tuple[str, ...], public_url: str | None) -> None:
        self._secrets = secrets
        self._public_url = public_url

    def url(self, run_id: str, name: str) -> str:
        """The URL; raises `InvalidData` for what names no signal, and `ConfigurationError`."""
        path = f"/api/runs/{run_id}/signals/{signal_name(name)}"
        if self._public_url is None:
            raise ConfigurationError(
                "A signal's URL needs CALLBOARD_PUBLIC_URL: set it to where others reach the API, "
                "such as https://app.example.com"
            )
        return f"{self._public_url}{path}?signature={_signature(self._keys[0], run_id, name)}"

    def is_signed(self, signature: str, run_id: str, name: str) -> bool:
        """Whether ``signature`` is that of this signal, under any of the keys."""
        given = signature.encode(errors="replace")
        return any(
            hmac.compare_digest(_signature(key, run_id, name).encode(), given) for key in self._keys
        )

    @cached_property
    def _keys(self) -> list[bytes]:
        return [derive(key.encode(), b"", b"callboard signal url 1") for key in self._secrets]


def _signature(key: bytes, run_id: str, name: str) -> str:
    content = f"{run_id}\0{name}".encode(errors="surrogatepass")
    return hmac.digest(key, content, "sha256").hex()
