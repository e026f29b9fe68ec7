"""How long to wait for more messages before a batch is written: the busier, the longer."""

from __future__ import annotations

import math

_BUSY = 500.0  # messages a second at which the whole linger pays off
_MEMORY = 1.0  # seconds after which the past counts for little


class Linger:
    """Follows the rate of messages; a lone message never waits, a flood waits `limit` seconds for company.

    Without it each message would cost a transaction; with a fixed one a calm channel would pay for a busy one.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._rate = 0.0

    def observe(self, messages: int, elapsed: float) -> None:
        """`messages` came in the last `elapsed` seconds."""
        if elapsed > 0:
            weight = 1 - math.exp(-elapsed / _MEMORY)
            self._rate += weight * (messages / elapsed - self._rate)

    @property
    def seconds(self) -> float:
        """How long to wait after a batch's first message: next to nothing while little comes."""
        return self._limit * min(1.0, self._rate / _BUSY) ** 2
