"""What a test's runs leave behind, where an application has Redis."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from callboard.runs.ends import End
from callboard.runs.seal import Call
from callboard.runs.signals import Sent
from callboard.runs.start import Start
from callboard.sdk.action import Action
from callboard.testing.memory import RunMemory, TestClock

__all__ = ["Records"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """Of one test."""

    progress: list[dict[str, Any]] = field(default_factory=list)
    started: list[Start] = field(default_factory=list)  # and not run yet, in order
    running: dict[str, Start] = field(default_factory=dict)  # by run id
    keys: dict[str, tuple[str, str]] = field(default_factory=dict)  # key: run id and digest
    ends: dict[str, End] = field(default_factory=dict)  # by run id
    memories: dict[str, RunMemory] = field(default_factory=dict)  # of what has not ended, by run id
    clock: TestClock = field(default_factory=TestClock)

    def begin(self, run_id: str, action: Action, call: Call) -> RunMemory:
        """The handler of this run is started, perhaps again."""
        memory = self.memories.setdefault(run_id, RunMemory(action=action, call=call))
        memory.wait, memory.woken = None, False
        return memory

    @property
    def waiting(self) -> list[tuple[str, RunMemory]]:
        """The runs whose handlers wait, whoever is due first."""
        waiting = [(run_id, one) for run_id, one in self.memories.items() if one.wait]
        return sorted(waiting, key=lambda pair: pair[1].due())

    def signal(self, run_id: str, name: str, sealed: bytes) -> Sent:
        """What comes of a signal."""
        memory = self.memories.get(run_id)
        if memory is None:
            return "ended"
        if name in memory.signals:
            return "known"
        memory.signals[name] = sealed
        memory.woken |= memory.wait is not None and name in memory.wait.signals
        return "kept"

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
                    status=self._status(run_id),
                    caller=start.call.caller,
                    parent=start.call.parent,
                    outcome=None,
                )
        return self.ends.get(run_id)

    def _status(self, run_id: str) -> str:
        memory = self.memories.get(run_id)
        if memory is not None and memory.wait is not None:
            return "waiting"
        return "running" if run_id in self.running else "queued"
