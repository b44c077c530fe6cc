"""Signals: what others tell a run. The first one of a name counts, later ones change nothing.

A signal is a field ``signal:<name>`` of the run's record, sealed, from before the run waits for it
until the record leaves; empty, where a handler has waited for it in vain: it would come too late.
Its name is under the seal: whoever can write Redis cannot make one
signal of a run into another.
"""

from __future__ import annotations

from typing import Any, Literal

from callboard import strict_json
from callboard.errors import SealError
from callboard.runs.seal import Sealer

__all__ = ["MAX_SIGNALS", "MAX_SIGNALS_BYTES", "Sent", "open_signal", "seal_signal"]

MAX_SIGNALS = 1000  # that one run keeps
MAX_SIGNALS_BYTES = 16 * 1024 * 1024  # that these have, sealed
_DEPTH = strict_json.MAX_DEPTH + 1  # the value lies beside its name

Sent = Literal["kept", "known", "full", "ended"]
"""What came of a signal: the run keeps it; has kept another one of that name before, or waited for
it in vain; keeps too many; has ended (or there is no such run)."""


def seal_signal(sealer: Sealer, run_id: str, action: str, name: str, value: Any) -> bytes:
    """Raises `callboard.strict_json.NotJson` for a value that is none."""
    return sealer.seal("signal", run_id, action, strict_json.dumps([name, value], _DEPTH))


def open_signal(sealer: Sealer, run_id: str, action: str, name: str, sealed: bytes) -> Any:
    """The value; raises `SealError` for what is not this signal of this run."""
    known, value = strict_json.loads(sealer.open("signal", run_id, action, sealed), _DEPTH)
    if known != name:
        raise SealError(f"run {run_id}: the signal {name!r} is another one's")
    return value
