"""What a run remembers of its handler: the steps that are done, in its record, sealed.

The field ``step:<n>`` is the n-th that was kept, a JSON list of the fields of `Kept`; ``steps`` is
how many there are, and ``steps_bytes`` how large they are together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from callboard import strict_json
from callboard.errors import InvalidData
from callboard.runs.seal import Sealer

__all__ = [
    "MAX_BYTES",
    "MAX_STEPS",
    "MAX_VALUE_BYTES",
    "Kept",
    "Kind",
    "kept_steps",
    "no_room",
    "steps_of_record",
    "value_text",
]

MAX_STEPS = 1_000  # of a run
MAX_BYTES = 16 * 1024 * 1024  # of a run's steps, sealed
MAX_VALUE_BYTES = 1024 * 1024  # of one, as JSON

_DEPTH = strict_json.MAX_DEPTH + 1  # the value lies in the list

Kind = Literal["step", "sleep", "wait", "signal"]
_KINDS: dict[str, Kind] = {kind: kind for kind in get_args(Kind)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One of them. Times are epoch milliseconds.

    A ``step`` has its function's value; a ``sleep`` and a ``wait`` (that a wait for a signal has
    begun) have the time until which they go; a ``signal`` has ``[value]``, or ``[]`` where none
    came in time.
    """

    kind: Kind
    name: str
    value: Any
    started: int
    ended: int

    def to_json(self, value: bytes | None = None) -> bytes:
        """A list of the fields; ``value``: that field's JSON, where it is known already."""
        if value is None:
            value = strict_json.dumps(self.value, _DEPTH)
        name = strict_json.dumps(self.name)
        return b'["%s",%s,%s,%d,%d]' % (self.kind.encode(), name, value, self.started, self.ended)

    @classmethod
    def from_json(cls, text: bytes) -> Kept:
        """The reverse of `to_json`."""
        kind, name, value, started, ended = strict_json.loads(text, _DEPTH + 1)
        return cls(kind=_KINDS[kind], name=name, value=value, started=started, ended=ended)


def kept_steps(
    sealer: Sealer, run_id: str, action: str, sealed: Sequence[bytes | None]
) -> list[Kept]:
    """The contents of the fields, opened; what is not there is left out. Raises `SealError`."""
    return [
        Kept.from_json(sealer.open("step", run_id, action, content))
        for content in sealed
        if content is not None
    ]


def steps_of_record(sealer: Sealer, run_id: str, values: Mapping[bytes, bytes]) -> list[Kept]:
    """The steps of a whole record, in the order in which they were kept. Raises `SealError`."""
    count = int(values.get(b"steps", b"0"))
    sealed = [values.get(b"step:%d" % n) for n in range(1, count + 1)]
    return kept_steps(sealer, run_id, values[b"action"].decode(), sealed)


def no_room() -> InvalidData:
    """What is raised where a run keeps no more."""
    return InvalidData(
        f"A run keeps at most {MAX_STEPS:,} steps, of {MAX_BYTES // 2**20} MiB together"
    )


def value_text(what: str, value: Any) -> bytes:
    """The value as JSON; raises `InvalidData`, naming ``what``, where it is none or too large."""
    try:
        text = strict_json.dumps(value)
    except strict_json.NotJson as error:
        raise InvalidData(f"{what}: not JSON: {error}") from None
    if len(text) > MAX_VALUE_BYTES:
        raise InvalidData(f"{what}: {len(text):,} bytes as JSON, at most {MAX_VALUE_BYTES:,} fit")
    return text
