"""The rate limit of history requests, as an account meets it at Telegram."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from telegram_stack.simulator.rpc import RpcError


class RequestLimit:
    """A bucket for each account: `burst` requests at once, refilled by `rate` a second; 0 means no limit.

    Who empties it has to wait until half of it is full again, and whoever asks earlier is refused.
    """

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._buckets: dict[int, tuple[float, float]] = {}
        self._barred: dict[int, float] = {}

    def take(self, account_id: int) -> None:
        """Count one request. Raises RpcError 420 FLOOD_WAIT_seconds."""
        if not self._rate:
            return
        now = self._clock()
        tokens, then = self._buckets.get(account_id, (float(self._burst), now))
        tokens = min(self._burst, tokens + (now - then) * self._rate)
        if tokens < 1 and now >= self._barred.get(account_id, 0.0):
            self._barred[account_id] = now + self._burst / 2 / self._rate
        wait = self._barred.get(account_id, 0.0) - now
        if wait > 0:
            self._buckets[account_id] = (tokens, now)
            raise RpcError(420, f"FLOOD_WAIT_{math.ceil(wait)}")
        self._buckets[account_id] = (tokens - 1, now)
