"""When the steps of a run began and ended: what is shown of them, without their values.

The record has each by itself (`callboard.runs.kept`), the history all of them in one, sealed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from callboard import strict_json
from callboard.errors import SealError
from callboard.runs.kept import kept_steps
from callboard.runs.seal import Sealer

__all__ = ["StepTime", "open_steps", "reopen_steps", "seal_steps", "step_fields"]

_PREFIX = b"step:"


class StepTime(NamedTuple):
    """A step that is done. Times are epoch milliseconds."""

    kind: str  # step, sleep, wait or signal
    name: str
    started: int
    ended: int


def step_fields(values: Mapping[bytes, bytes]) -> list[bytes]:
    """The kept steps of a record, sealed, in their order."""
    numbers = {
        int(number): value
        for name, value in values.items()
        if name.startswith(_PREFIX) and _is_number(number := name.removeprefix(_PREFIX))
    }
    return [numbers[number] for number in sorted(numbers)]


def _is_number(text: bytes) -> bool:
    return text.isdigit() and len(text) < 16


def open_steps(
    sealer: Sealer, run_id: str, action: str, sealed: Sequence[bytes]
) -> Iterator[StepTime]:
    """Those of a record, without what cannot be read."""
    for one in sealed:
        with contextlib.suppress(SealError, LookupError, ValueError, TypeError):
            [kept] = kept_steps(sealer, run_id, action, [one])
            yield StepTime(kept.kind, kept.name, kept.started, kept.ended)


def seal_steps(sealer: Sealer, run_id: str, action: str, steps: Sequence[StepTime]) -> bytes:
    """All of them, for the history."""
    return sealer.seal("steps", run_id, action, strict_json.dumps(steps))


def reopen_steps(sealer: Sealer, run_id: str, action: str, sealed: bytes | None) -> list[StepTime]:
    """Those that the history has; none where that cannot be read."""
    with contextlib.suppress(SealError, ValueError, TypeError):
        text = sealer.open("steps", run_id, action, sealed) if sealed else b"[]"
        return [StepTime(*step) for step in strict_json.loads(text)]
    return []
