"""Growing delays between attempts, with jitter, so that many clients do not return at once."""

from __future__ import annotations

import random


class Backoff:
    """Doubles from `first` to `limit` seconds; each delay is drawn between half of the step and the step."""

    def __init__(self, first: float, limit: float) -> None:
        if not 0 < first <= limit:
            raise ValueError(f"a back-off grows from first to limit: first={first}, limit={limit}")
        self._first = first
        self._limit = limit
        self._step = first

    def next(self) -> float:
        """How long to wait now, in seconds."""
        step = self._step
        self._step = min(self._limit, step * 2)
        return step * (0.5 + random.random() / 2)  # noqa: S311 - spreads attempts, protects nothing

    def reset(self) -> None:
        """Begin again: the last attempt succeeded."""
        self._step = self._first
