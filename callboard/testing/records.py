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
    running: dict[str, Start] = field(default_factory=dict)  # by run id
    keys: dict[str, tuple[str, str]] = field(default_factory=dict)  # key: run id and digest
    ends: dict[str, End] = field(default_factory=dict)  # by run id

    @property
    def not_ended(self) -> list[Start]:
        """What was started and has not ended."""
        return [*self.running.values(), *self.started]

    def next(self) -> Start | None:
        """The first start whose group, if it waits for one, has ended; it runs from now on."""
        groups = {start.terms.group for start in self.not_ended}
        for start in self.started:
            if not start.terms.join or start.terms.join not in groups:
                self.started.remove(start)
                self.running[start.run_id] = start
                return start
        return None

    def end(self, run_id: str) -> End | None:
        """How a run stands."""
        for start in self.not_ended:
            if start.run_id == run_id:
                return End(
                    run_id=run_id,
                    action=start.action.name,
                    status="running" if run_id in self.running else "queued",
                    caller=start.call.caller,
                    parent=start.call.parent,
                    outcome=None,
                )
        return self.ends.get(run_id)
