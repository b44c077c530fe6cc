"""`ActionRequest`: the request that an action with ``raw=True`` was called with."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["ActionRequest"]

_LEFT_OUT = {"authorization", "cookie", "proxy-authorization"}  # a caller's credentials


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionRequest:
    """Headers and body, as they came; both empty where no request started the run."""

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)  # lower-case names
    body: bytes = field(default=b"", repr=False)
    received_at: float = 0.0  # epoch seconds, when the API had it; 0: no request

    @classmethod
    def of(cls, headers: Iterable[tuple[str, str]], body: bytes) -> ActionRequest:
        """Without the headers that carry the caller's credentials."""
        lower = ((name.lower(), value) for name, value in headers)
        kept = {name: value for name, value in lower if name not in _LEFT_OUT}
        return cls(headers=kept, body=body, received_at=time.time())

    def to_json(self) -> dict[str, Any]:
        """``{"headers", "body", "receivedAt"}``, the body in base64."""
        body = base64.b64encode(self.body).decode()
        return {"headers": self.headers, "body": body, "receivedAt": self.received_at}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ActionRequest:
        """The reverse of `to_json`."""
        body = base64.b64decode(value["body"])
        return cls(headers=value["headers"], body=body, received_at=value["receivedAt"])
