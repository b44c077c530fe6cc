"""What a test's runs remember, where an application has their records, and the test's clock."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from callboard.runs.commands import Wait
from callboard.runs.kept import MAX_BYTES, MAX_STEPS, no_room
from callboard.runs.seal import Call
from callboard.sdk.action import Action

__all__ = ["RunMemory", "TestClock"]


class TestClock:
    """The time of a test's runs: the machine's, and what the test has let pass."""

    __test__ = False  # no test itself, whatever its name

    def __init__(self) -> None:
        self._ahead = 0  # milliseconds

    def __call__(self) -> int:
        """Epoch milliseconds."""
        return round(time.time() * 1000) + self._ahead

    def reach(self, moment: int) -> None:
        """Have it be that moment (epoch milliseconds), or later."""
        self._ahead += max(moment - self(), 0)


@dataclass(slots=True, kw_only=True)
class RunMemory:
    """Of one run."""

    action: Action
    call: Call
    steps: dict[int, bytes] = field(default_factory=dict)  # JSON, by number
    signals: dict[str, bytes] = field(default_factory=dict)  # sealed, by name
    wait: Wait | None = None  # what its handler waits for
    woken: bool = False  # that has come
    attempt: int = 1
    resumed: bool = False  # the handler has waited before

    def keep(self, number: int, content: bytes) -> None:
        """Keep a step; raises `InvalidData` where a run has no room for it."""
        known = sum(len(text) for each, text in self.steps.items() if each != number)
        if number > MAX_STEPS or known + len(content) > MAX_BYTES:
            raise no_room()
        self.steps[number] = content

    def due(self) -> int:
        """When the handler goes on; it waits."""
        return 0 if self.woken or self.wait is None else self.wait.due
