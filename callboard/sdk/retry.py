"""When a run that failed is tried again."""

from __future__ import annotations

import random
from dataclasses import dataclass

__all__ = ["Retry"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Retry a handler that raised one of ``on``, or a group of nothing else.

    The wait before attempt n+1 is drawn evenly from half to all of
    ``min(max_backoff, backoff * 2 ** (n - 1))`` seconds: the jitter keeps runs that failed
    together from coming back together.
    """

    max_attempts: int = 3  # handler starts in all, the first included
    on: tuple[type[BaseException], ...] = (Exception,)
    backoff: float = 1.0  # seconds before the second attempt
    max_backoff: float = 60.0  # seconds

    def __post_init__(self) -> None:
        if not isinstance(self.max_attempts, int) or not 1 <= self.max_attempts <= 100:
            raise ValueError(f"Retry: max_attempts must be 1..100, not {self.max_attempts!r}")
        if not 0 < self.backoff <= self.max_backoff:
            raise ValueError(
                f"Retry: needs 0 < backoff <= max_backoff, "
                f"not {self.backoff!r} and {self.max_backoff!r}"
            )
        kinds = self.on if isinstance(self.on, tuple) else (self.on,)
        if not kinds or not all(isinstance(k, type) and issubclass(k, Exception) for k in kinds):
            raise ValueError(f"Retry: on must name exception classes, not {self.on!r}")
        object.__setattr__(self, "on", kinds)

    def covers(self, error: BaseException) -> bool:
        """Whether a handler that raised this is to be tried again."""
        if isinstance(error, self.on):
            return True
        return isinstance(error, BaseExceptionGroup) and error.split(self.on)[1] is None

    def delay(self, attempt: int) -> float:
        """Seconds to wait after attempt number ``attempt`` (1-based) failed."""
        longest = min(self.max_backoff, self.backoff * 2.0 ** (attempt - 1))
        return random.uniform(longest / 2, longest)  # noqa: S311 - jitter, not a secret
