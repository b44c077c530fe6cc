"""The rate limit per caller (CALLBOARD_RATE_LIMIT), shared by all API processes through Redis.

Every route under ``/api`` is counted: calls of actions by themselves, and all other requests
together, so that who looks after his runs can still call. What is refused before (401, 404 of a
path, 400 of a call) is not.
"""

from __future__ import annotations

import math
import time
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Literal

import redis
from flask import request
from limits import RateLimitItem, parse_many
from limits.storage import RedisStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from callboard.connections.keys import Keys
from callboard.connections.redis import guarded
from callboard.errors import RateLimited
from callboard.runs.live import caller_tag
from callboard.runs.seal import Sealer

from ..identity.tokens import Identity

__all__ = ["Kind", "RateLimit", "network"]

Kind = Literal["calls", "requests"]


class RateLimit:
    """Counts in sliding windows; an anonymous caller is known by the address."""

    def __init__(self, limits: str, client: redis.Redis, sealer: Sealer, keys: Keys) -> None:
        self._limits = parse_many(limits)
        self._sealer = sealer
        storage = RedisStorage(
            "redis://", connection_pool=client.connection_pool, key_prefix=keys.rate
        )
        self._windows = SlidingWindowCounterRateLimiter(storage)

    def check(self, identity: Identity | None, kind: Kind) -> None:
        """Count this request; raises `RateLimited`, or `BrokerUnavailable` while nobody counts."""
        who = self._who(identity)
        with guarded():
            for limit in self._limits:
                if not self._windows.hit(limit, who, kind):
                    raise self._refusal(limit, who, kind)

    def take(
        self, identity: Identity | None, kind: Kind, wanted: int
    ) -> tuple[int, RateLimited | None]:
        """Count so many requests that came at once, or as many of them as are allowed.

        Answers how many, and the refusal of the others; raises `BrokerUnavailable`.
        """
        who = self._who(identity)
        with guarded():
            left = [
                self._windows.get_window_stats(one, who, kind).remaining for one in self._limits
            ]
            most = min(left)
            limit, allowed = self._limits[left.index(most)], min(wanted, most)
            for one in self._limits if allowed else ():
                if not self._windows.hit(one, who, kind, cost=allowed):  # taken by others meanwhile
                    limit, allowed = one, 0
                    break
            return allowed, self._refusal(limit, who, kind) if allowed < wanted else None

    def _who(self, identity: Identity | None) -> str:
        if identity:
            return caller_tag(self._sealer, identity.subject)
        return self._sealer.sign("address", network(request.remote_addr or ""))

    def _refusal(self, limit: RateLimitItem, who: str, kind: Kind) -> RateLimited:
        reset = self._windows.get_window_stats(limit, who, kind).reset_time
        return RateLimited(
            f"Too many {kind}: {limit} are allowed. Slow down.",
            retry_after=max(1, math.ceil(reset - time.time())),
        )


def network(address: str) -> str:
    """What one client has of the Internet: an IPv4 address, or the /64 of an IPv6 address."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address  # a socket's, or what a trusted proxy says
    if isinstance(parsed, IPv6Address):
        mapped = parsed.ipv4_mapped
        return str(mapped or ip_network((int(parsed) >> 64 << 64, 64)))
    return address
