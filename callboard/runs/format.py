"""The version of what two processes hand each other in Redis: the record's field ``v``, the
message's header ``v``.

It says what a reader has to know. An addition that an older reader may pass over leaves it as it
is; whatever an older reader would get wrong raises it. Without one: 1. What is newer is left, whole
and untouched, for a process that knows it.

=  ==========================================================================================
1  a run that somebody called
2  a run that was started: it may be ``waiting``, and count for a group, and an older worker would
   neither wait nor count
3  a run whose handler has kept steps, or was parked: an older worker would do again what is done
4  a run that a limit counts: it has a slot, or waits for one, and an older worker would start it
   without
=  ==========================================================================================
"""

from __future__ import annotations

__all__ = ["FORMAT", "LIMITED", "MEMORY", "PLAIN", "START", "newer"]

FORMAT = 4  # the latest that this code knows
LIMITED = 4  # of records of a run that a limit counts
MEMORY = 3  # of records that say more than a start's: steps, and that the handler waited
START = 2  # of records that say more than a plain call's
PLAIN = 1  # of messages, and of the records that say no more


def newer(version: object) -> int | None:
    """The version, where it is one that this code does not know yet."""
    if isinstance(version, bytes):
        version = int(version) if len(version) < 16 and version.isdigit() else 0
    return version if isinstance(version, int) and version > FORMAT else None
