"""What this Telegram does wrong on purpose. The counts run down as changes are pushed; all else lasts until reset."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")


class Faults:
    """`skip`, `duplicate` and `shuffle` concern the next so many changes of channels.

    Skipped ones are not pushed, but stand in the difference; shuffled ones are held until there are so many, then
    pushed the newest first. `expire`: the next so many requests for a file are refused as if its reference were too
    old. `silent`: connections stay open and new ones are accepted, but nothing is answered or pushed. `delay`: seconds
    before each answer. `private`: bare ids of channels that nobody can read.
    """

    def __init__(self) -> None:
        self.skip = 0
        self.duplicate = 0
        self.shuffle = 0
        self.expire = 0
        self.silent = False
        self.delay = 0.0
        self.private: set[int] = set()
        self._flooded: dict[str, float] = {}
        self._held: list[object] = []

    def flood(self, method: str, seconds: float) -> None:
        """Answer `method` (as in ``messages.getHistory``, without the section) with FLOOD_WAIT for so long."""
        self._flooded[method.lower()] = time.monotonic() + seconds

    def flood_wait(self, method: str) -> float:
        """Seconds until `method` is answered again."""
        return max(0.0, self._flooded.get(method.lower(), 0.0) - time.monotonic())

    def arrange(self, changes: Iterable[T]) -> list[T]:
        """What is pushed of `changes`, in this order."""
        pushed: list[T] = []
        for change in changes:
            if self.skip:
                self.skip -= 1
                continue
            for released in self._released(change):
                pushed.append(released)
                if self.duplicate:
                    self.duplicate -= 1
                    pushed.append(released)
        return pushed

    def _released(self, change: T) -> list[T]:
        if not self.shuffle:
            return [change]
        self._held.append(change)
        if len(self._held) < self.shuffle:
            return []
        released: list[T] = self._held[::-1]  # type: ignore[assignment] # of one type within a server
        self._held.clear()
        self.shuffle = 0
        return released
