"""All connections of a process: who waits too long is ended, and nobody can fill the server."""

from __future__ import annotations

import ipaddress
import select
import time
from collections import Counter
from http import HTTPStatus
from typing import Any

from gevent.monkey import get_original

from .connection import WORKING, Connection

__all__ = ["SPARE", "Connections", "address_key"]

HEAD_SECONDS = 10.0  # from the first byte of a head to its last; also from a connect to the first
BODY_SECONDS = 30.0  # from the end of the head
SEND_SECONDS = 30.0  # for a piece of a response
LINGER_SECONDS = 10.0  # for what is still under way when the response is sent
SPARE = 256  # connections above the limit that are there to be told so
MADE_ROOM = 1 / 40  # of all places: so many are cleared at once


class Connections:
    """All connections of this process."""

    def __init__(self, capacity: int, keepalive: float) -> None:
        self.capacity = capacity
        self.per_address: int | None = None  # no bound
        head = min(HEAD_SECONDS, keepalive or HEAD_SECONDS)
        self._seconds = (
            keepalive or HEAD_SECONDS,
            head,
            BODY_SECONDS,
            SEND_SECONDS,
            LINGER_SECONDS,
        )
        self._open: dict[Connection, None] = {}
        self._ended = 0  # of these: they leave
        self._by_address: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._open)

    def add(self, connection: Connection) -> HTTPStatus | None:
        """Take it in, if need be in the place of one that waits for its client.

        The status to refuse it with where it is one too many.
        """
        self._open[connection] = None
        if connection.key is not None:
            self._by_address[connection.key] += 1
            if self.per_address and self._by_address[connection.key] > self.per_address:
                return HTTPStatus.TOO_MANY_REQUESTS
        if self._excess > 0:
            self._make_room(besides=connection)
        return HTTPStatus.SERVICE_UNAVAILABLE if self._excess > 0 else None

    def remove(self, connection: Connection) -> None:
        """It is closed."""
        del self._open[connection]
        self._ended -= connection.ended
        if (key := connection.key) is not None:
            self._by_address[key] -= 1
            if not self._by_address[key]:
                del self._by_address[key]

    @property
    def _excess(self) -> int:
        """How many more there are than places: also those that were refused and still linger."""
        return len(self._open) - self._ended - self.capacity

    def _make_room(self, besides: Connection | None = None) -> None:
        """End those that have waited for their clients longest."""
        waiting = [
            one
            for one in self._open
            if one.phase is not WORKING and not one.ended and one is not besides
        ]
        waiting.sort(key=lambda one: one.since)
        for connection in waiting[: max(1, self._excess, int(self.capacity * MADE_ROOM))]:
            self._end(connection)

    def _end(self, connection: Connection) -> None:
        connection.end()
        self._ended += 1

    def end_overdue(self) -> None:
        """End those that have waited for their clients too long."""
        now = time.monotonic()
        for one in list(self._open):
            if one.ended or one.phase is WORKING:
                continue
            if now - one.since > self._seconds[one.phase]:
                self._end(one)
        if len(self._open) >= self.capacity + SPARE:  # nobody more is let in, to make room
            self._make_room()

    def hung_up(self) -> set[int]:
        """The threads that serve a request whose client is gone."""
        serving = {
            one.descriptor: one for one in self._open if one.phase is WORKING and not one.ended
        }
        poll = _poll()
        for descriptor in serving:
            poll.register(descriptor, _GONE)
        return {serving[descriptor].thread for descriptor, _ in poll.poll(0)}


_poll = get_original("select", "poll")  # gevent's own would watch each by itself
_GONE = getattr(select, "POLLRDHUP", 0)  # besides an error, and an end in both directions


def address_key(addr: Any) -> str | None:
    """What counts as one address; None for this machine's own: a proxy on it has many clients."""
    if not isinstance(addr, tuple):
        return None  # a unix socket
    address = ipaddress.ip_address(addr[0].partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:  # the least that one subscriber is given
            return None if address.is_loopback else address.exploded[:19]
        address = address.ipv4_mapped
    return None if address.is_loopback else str(address)
