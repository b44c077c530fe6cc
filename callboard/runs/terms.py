"""The terms of a start: when its run is due, and the group that it is part of, or waits for."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Terms"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Of one run. A plain call has none."""

    delay: int = 0  # milliseconds from now until it is due; 0: now
    group: str = ""  # the group that the run counts for
    join: str = ""  # the group whose end the run waits for
    size: int = 0  # runs of that group

    def arguments(self) -> list[str | int]:
        """What the script ``accept`` takes besides a call."""
        return [max(self.delay, 0), self.group, self.join, self.size]
