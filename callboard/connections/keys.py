"""The names of what an application keeps in Redis, all below its namespace (CALLBOARD_NAMESPACE).

``<namespace>:...`` are Callboard's own keys and channels, ``<namespace>:celery:...`` Celery's: its
queues, which are lists, and its channels. In the default namespace Celery's have no prefix: the
queue ``reports`` is the list ``reports``. Names of queues and namespaces have no colon, so no name
of one namespace is one of another.
"""

from __future__ import annotations

import re

__all__ = ["DEFAULT_NAMESPACE", "Keys"]

DEFAULT_NAMESPACE = "callboard"
_FORM = re.compile("[A-Za-z0-9_-]{1,40}")


class Keys:
    """Those of one namespace. Raises ValueError for a name that is none."""

    def __init__(self, namespace: str = DEFAULT_NAMESPACE) -> None:
        if not _FORM.fullmatch(namespace):
            raise ValueError(f"{namespace!r:.80} is not 1 to 40 letters, digits, _ or -")
        self.namespace = namespace
        own = f"{namespace}:"
        self.celery = "" if namespace == DEFAULT_NAMESPACE else f"{own}celery:"  # kombu's prefix
        self.open = f"{own}open"  # runs that have not ended, by when to look at them again
        self.due = f"{own}due"  # runs that wait for their time, by when it comes
        self.live = f"{own}live"  # runs that the history does not have yet, by their enqueuing
        self.ended = f"{own}ended"  # runs that the history is to take
        self.outbox = f"{own}outbox"  # there while Redis knows of every row of the outbox
        self.limits = f"{own}limits"  # their numbers, by action
        self.limited = f"{own}limited"  # those with runs that wait for a slot, by when to look
        self.counters = f"{own}counters"
        self.sweep = f"{own}sweep"  # whose turn it is, as with the next
        self.archiver = f"{own}archiver"
        self.rate = f"{own}rate"  # then what `limits` puts behind it
        self.applications = f"{own}applications"  # see `callboard.applications`
        self.worker = f"{own}worker:"  # then the worker's host name
        self.beat = f"{own}beat:"  # then the beat's host name
        self.unready = f"{own}unready:"  # then the key that is not shown
        self._run = f"{own}run:"
        self._group = f"{own}group:"
        self._limit = f"{own}limit:"
        self._idempotency = f"{own}idempotency:"
        self._reply = f"{own}reply:"

    def run(self, run_id: str) -> str:
        """The record of a run."""
        return self._run + run_id

    def group(self, group_id: str) -> str:
        """How many runs of a group have not ended, and what waits for them."""
        return self._group + group_id

    def queue(self, name: str) -> str:
        """The list of a queue's messages (`Action.message_queue`)."""
        return self.celery + name

    def idempotency(self, key: str) -> str:
        """What run an idempotency key led to."""
        return self._idempotency + key

    def reply(self, process: str) -> str:
        """The channel of an API process."""
        return self._reply + process

    def constants(self) -> dict[str, str]:
        """Those that scripts make up by themselves: the names of Lua's constants, and literals."""
        names = {
            "RUN": self._run,
            "LIVE": self.live,
            "ENDED": self.ended,
            "COUNTERS": self.counters,
            "DUE": self.due,
            "GROUP": self._group,
            "SLOTS": f"{self._limit}slots:",
            "STARTS": f"{self._limit}starts:",
            "LINE": f"{self._limit}line:",
            "LIMITED": self.limited,
            "LIMITS": self.limits,
        }
        return {constant: f"'{key}'" for constant, key in names.items()}
