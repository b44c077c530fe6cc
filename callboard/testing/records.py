"""What a test's runs leave behind, where an application has Redis."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from callboard.runs.ends import End
from callboard.runs.start import Start

__all__ = ["Records"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """Of one test."""

    progress: list[dict[str, Any]] = field(default_factory=list)
    started: list[Start] = field(default_factory=list)  # and not run yet, in order
    keys: dict[str, tuple[str, str]] = field(default_factory=dict)  # key: run id and digest
    ends: dict[str, End] = field(default_factory=dict)  # by run id

    def next(self) -> Start | None:
        """The first start whose group, if it waits for one, has nothing left here."""
        for start in self.started:
            groups = {other.terms.group for other in self.started}
            if not start.terms.join or start.terms.join not in groups:
                self.started.remove(start)
                return start
        return None
