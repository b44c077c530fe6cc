"""The rate limit per caller (CALLBOARD_RATE_LIMIT), shared by all API processes through Redis."""

from __future__ import annotations

import math
import time

import redis
from flask import request
from limits import RateLimitItem, parse_many
from limits.storage import RedisStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from api.identity import Identity
from callboard.broker import guarded
from callboard.errors import RateLimited
from callboard.live import caller_tag
from callboard.seal import Sealer

__all__ = ["RateLimit"]

PREFIX = "callboard:rate"


class RateLimit:
    """Counts calls in sliding windows; an anonymous caller is known by the address."""

    def __init__(self, limits: str, client: redis.Redis, sealer: Sealer) -> None:
        self._limits = parse_many(limits)
        self._sealer = sealer
        storage = RedisStorage(
            "redis://", connection_pool=client.connection_pool, key_prefix=PREFIX
        )
        self._windows = SlidingWindowCounterRateLimiter(storage)

    def check(self, identity: Identity | None) -> None:
        """Count this call; raises `RateLimited`, or `BrokerUnavailable` while nobody counts."""
        who = (
            caller_tag(self._sealer, identity.subject)
            if identity
            else self._sealer.sign("address", request.remote_addr or "")
        )
        with guarded():
            for limit in self._limits:
                if not self._windows.hit(limit, who):
                    raise self._refusal(limit, who)

    def _refusal(self, limit: RateLimitItem, who: str) -> RateLimited:
        reset = self._windows.get_window_stats(limit, who).reset_time
        return RateLimited(
            f"Too many calls: {limit} are allowed. Slow down.",
            retry_after=max(1, math.ceil(reset - time.time())),
        )
