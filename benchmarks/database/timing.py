"""Measured times and what is said of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

PAUSE = 0.005
"""Seconds between single calls, as real callers make them: back to back they are faster, and mislead."""


@dataclass
class Timings:
    """Times of equal calls in seconds."""

    seconds: list[float] = field(default_factory=list)

    def take(self, call: Callable[[], Any]) -> Any:
        """Time one call and hand on its result."""
        begun = time.perf_counter()
        result = call()
        self.seconds.append(time.perf_counter() - begun)
        return result

    @property
    def median_ms(self) -> float:
        """Median in milliseconds."""
        return median(self.seconds) * 1000

    @property
    def p95_ms(self) -> float:
        """95th percentile (nearest rank) in milliseconds."""
        ordered = sorted(self.seconds)
        return ordered[math.ceil(0.95 * len(ordered)) - 1] * 1000

    def times(self, factor: float) -> Timings:
        """As if each call had been made `factor` times."""
        return Timings([second * factor for second in self.seconds])


def paced(calls: Iterable[Callable[[], Any]]) -> Timings:
    """Time each call, with a pause before it."""
    timings = Timings()
    for call in calls:
        time.sleep(PAUSE)
        timings.take(call)
    return timings
