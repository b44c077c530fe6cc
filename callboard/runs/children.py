"""Children: the runs that a run starts, and what is the same however often it starts them.

Their ids derive from their parent's, so that a rerun of the parent finds the children that it has
started before. Those that it starts under a key are one run for a day, whoever starts them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha1
from typing import TYPE_CHECKING
from uuid import UUID, uuid5

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

__all__ = [
    "MAX_CHILDREN",
    "MAX_DEPTH",
    "child_id",
    "group_run",
    "group_runs",
    "keyed_id",
    "then_id",
]

MAX_CHILDREN = 10_000  # of one run
MAX_DEPTH = 100  # of runs that start runs

_IDS = UUID("0a4b7f0e-53a2-5d0f-9b0c-5f5d7b7e31d8")  # the namespace of children's ids


def child_id(parent: str, ordinal: str) -> str:
    """The run, or the group, that a run starts with its so-manieth call."""
    return str(uuid5(_IDS, f"child\n{parent}\n{ordinal}"))


def keyed_id(idempotency: tuple[str, str], due: datetime) -> str:
    """The run of a key and a body (`callboard.runs.idempotency.scoped`) that is due on that day.

    Over midnight the key in Redis leads to it.
    """
    return str(uuid5(_IDS, f"key\n{' '.join(idempotency)}\n{due.astimezone(UTC):%Y-%m-%d}"))


def group_run(group: str, number: int) -> str:
    """The so-manieth run of a group, from 0."""
    return str(uuid5(_IDS, f"group\n{group}\n{number}"))


def group_runs(group: str, size: int) -> list[str]:
    """All runs of a group, in the order in which they were given.

    Each is its `group_run`: `uuid5`, in a third of its time.
    """
    begun = sha1(_IDS.bytes + f"group\n{group}\n".encode(), usedforsecurity=False)
    return [_uuid5(begun, b"%d" % number) for number in range(size)]


def _uuid5(begun: Hash, rest: bytes) -> str:
    """The UUID (RFC 9562, 5.5) of what has been hashed already and the rest."""
    whole = begun.copy()
    whole.update(rest)
    octets = bytearray(whole.digest()[:16])
    octets[6] = octets[6] & 0x0F | 0x50
    octets[8] = octets[8] & 0x3F | 0x80
    digits = octets.hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def then_id(group: str) -> str:
    """The run that waits for the group."""
    return str(uuid5(_IDS, f"then\n{group}"))
