"""How many runs of an action execute at once, or start in how long."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Limit"]

MOST = 100_000  # runs at once, and starts in one window
UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}  # seconds
_RATE = re.compile(rf"([0-9]{{1,6}})/({'|'.join(UNITS)})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """At most ``concurrency`` runs of an action are in the handler at once, and at most ``rate``
    (``"100/minute"``; second, minute, hour or day) are started within any such time; across all
    workers. What is over waits in its order.

    ``key``: None counts all runs of the action together; ``"caller"`` each caller's, those without
    one together; a function gets the params as the handler does, and tells by a text which runs
    belong together: ``key=lambda params: params.tenant``.
    """

    concurrency: int | None = None  # None: any number
    rate: str | None = None  # None: any
    key: Literal["caller"] | Callable[[Any], str] | None = None

    def __post_init__(self) -> None:
        if self.concurrency is None and self.rate is None:
            raise ValueError("Limit: needs concurrency, rate or both")
        if self.concurrency is not None and not _is_count(self.concurrency):
            raise ValueError(f"Limit: concurrency must be 1..{MOST:,}, not {self.concurrency!r}")
        if self.rate is not None and not _is_count(_rate(self.rate)[0]):
            raise ValueError(
                f"Limit: rate must be '<1..{MOST}>/<{'|'.join(UNITS)}>', "
                f"such as '100/minute', not {self.rate!r}"
            )
        if not (self.key is None or self.key == "caller" or callable(self.key)):
            raise ValueError(
                f"Limit: key must be 'caller' or a function of the params, not {self.key!r}"
            )
        if inspect.iscoroutinefunction(self.key):
            raise ValueError(f"Limit: key must be a plain function, not `async def`: {self.key!r}")
        if callable(self.key) and not _takes_params(self.key):
            raise ValueError(
                f"Limit: key must be callable with one argument, the params, not "
                f"{inspect.signature(self.key)}"
            )

    @property
    def numbers(self) -> str:
        """As Redis keeps them: runs at once, starts, and within how many ms; 0 for no limit."""
        count, seconds = _rate(self.rate)
        return f"{self.concurrency or 0} {count} {seconds * 1000}"


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST


def _takes_params(key: Callable[..., Any]) -> bool:
    try:
        inspect.signature(key).bind(None)
    except TypeError:
        return False
    except ValueError:  # it tells no signature
        return True
    return True


def _rate(text: object) -> tuple[int, int]:
    """How many starts in how many seconds; (0, 0) for what is no rate."""
    match = _RATE.fullmatch(text) if isinstance(text, str) else None
    return (int(match[1]), UNITS[match[2]]) if match else (0, 0)
