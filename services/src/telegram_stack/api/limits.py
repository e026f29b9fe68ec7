"""How often a client may ask."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

WINDOW = 60.0
_MANY = 10_000  # clients that are remembered at most


@dataclass(frozen=True)
class Verdict:
    """Whether a request may pass, and what its client has left until the window ends in `reset` seconds."""

    allowed: bool
    limit: int
    remaining: int
    reset: int

    def headers(self) -> dict[str, str]:
        """What a client is told."""
        told = {
            "RateLimit-Limit": str(self.limit),
            "RateLimit-Remaining": str(self.remaining),
            "RateLimit-Reset": str(self.reset),
        }
        return told if self.allowed else told | {"Retry-After": str(self.reset)}


class RateLimit:
    """`limit` requests a client within a minute that begins with its first one."""

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._windows: dict[str, tuple[float, int]] = {}  # client to the window's end and how often it has asked

    def take(self, client: str) -> Verdict:
        """Count a request of `client`."""
        now = self._clock()
        end, asked = self._windows.get(client, (0.0, 0))
        if end <= now:
            self._windows.pop(client, None)  # to the end of the order
            end, asked = now + WINDOW, 0
            self._forget(now)
        asked = min(asked + 1, self._limit + 1)
        self._windows[client] = (end, asked)
        return Verdict(asked <= self._limit, self._limit, max(0, self._limit - asked), math.ceil(end - now))

    def _forget(self, now: float) -> None:
        """Windows stand in the order of their ends."""
        while self._windows:
            oldest = next(iter(self._windows))
            if self._windows[oldest][0] > now and len(self._windows) < _MANY:
                return
            del self._windows[oldest]
